// Command restricted checks every pod in Kubernetes manifests against the
// restricted Pod Security Standard, with the API server's own admission rules.
package main

import (
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func main() {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	exitOn(err)
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	pods, rejected := 0, 0
	documents := yaml.NewYAMLOrJSONDecoder(os.Stdin, 4096)
	for {
		var raw runtime.RawExtension
		if err := documents.Decode(&raw); err == io.EOF {
			break
		} else {
			exitOn(err)
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw.Raw, nil, nil)
		if len(raw.Raw) == 0 || runtime.IsNotRegisteredError(err) {
			continue
		}
		exitOn(err)
		name, pod := template(object)
		if pod == nil {
			continue
		}
		pods++
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
		if !result.Allowed {
			rejected++
			fmt.Printf("%s: %s\n", name, result.ForbiddenDetail())
		}
	}
	fmt.Printf("%d pods, %d of them violate the restricted profile\n", pods, rejected)
	if pods == 0 || rejected > 0 {
		os.Exit(1)
	}
}

// template returns the name and the pod template of an object, or nil if it has
// none.
func template(object runtime.Object) (string, *corev1.PodTemplateSpec) {
	switch object := object.(type) {
	case *appsv1.Deployment:
		return "Deployment " + object.Name, &object.Spec.Template
	case *appsv1.StatefulSet:
		return "StatefulSet " + object.Name, &object.Spec.Template
	case *batchv1.Job:
		return "Job " + object.Name, &object.Spec.Template
	case *corev1.Pod:
		return "Pod " + object.Name, &corev1.PodTemplateSpec{ObjectMeta: object.ObjectMeta, Spec: object.Spec}
	}
	return "", nil
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
