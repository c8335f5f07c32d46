{{/* What the pods of all components have in common. */}}

{{/*
Many definitions take a dict: root; component, the name of the component; and pod,
what the values add to the pods of that component beside what `pod` adds to all.
*/}}

{{/* `annotations` of a long-running pod: a changed setting makes a new revision. Takes: root, pod. */}}
{{- define "northbridge.podAnnotations" -}}
checksum/config: {{ include "northbridge.config" .root | sha256sum }}
{{- with include "northbridge.secret" .root }}
checksum/secret: {{ . | sha256sum }}
{{- end }}
{{- with include "northbridge.annotations" . }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Takes: root, pod. */}}
{{- define "northbridge.annotations" -}}
{{- with merge (dict) (default dict .pod.annotations) .root.Values.pod.annotations }}
{{- toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes: root, component, pod. */}}
{{- define "northbridge.podLabels" -}}
{{ include "northbridge.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with merge (dict) (default dict .pod.labels) .root.Values.pod.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The restricted profile of Pod Security, and the user of the image. */}}
{{- define "northbridge.podSecurity" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
# Otherwise Kubernetes sets NORTHBRIDGE_… for a Service of that name.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "northbridge.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Takes: root, and serviceAccount if it is not that of the release. */}}
{{- define "northbridge.placement" -}}
{{- with default (include "northbridge.serviceAccount" .root) .serviceAccount }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .root.Values.pod }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Spreads the pods of a component over zones and nodes, each revision separately. Takes: root, component. */}}
{{- define "northbridge.spread" -}}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "northbridge.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
    matchLabelKeys: [{{ $.revision }}]
{{- end }}
{{- end -}}

{{/* Variables that name the files of secrets, one per setting. Takes: root, pod. */}}
{{- define "northbridge.env" -}}
{{- range $setting, $from := .root.Values.secrets }}
- name: NORTHBRIDGE__{{ $setting | replace "." "__" | upper }}_FILE
  value: /etc/northbridge/secrets/{{ $setting }}
{{- end }}
{{- with concat .root.Values.pod.env (default list .pod.env) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes: root, pod. */}}
{{- define "northbridge.volumeMounts" -}}
- {name: config, mountPath: /etc/northbridge/config, readOnly: true}
{{- if .root.Values.secrets }}
- {name: secrets, mountPath: /etc/northbridge/secrets, readOnly: true}
{{- end }}
{{- with concat .root.Values.pod.volumeMounts (default list .pod.volumeMounts) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes: root, pod, name of the ConfigMap and of the chart's own Secret. */}}
{{- define "northbridge.volumes" -}}
- name: config
  configMap: {name: {{ .name }}}
{{- if .root.Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
{{- range $setting, $from := .root.Values.secrets }}
      - secret:
          name: {{ default $.name $from.secretName }}
          items: [{key: {{ default $setting $from.key }}, path: {{ $setting }}}]
{{- end }}
{{- end }}
{{- with concat .root.Values.pod.volumes (default list .pod.volumes) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A container that runs a command which ends by itself. Takes: root, pod, name, args, resources. */}}
{{- define "northbridge.command" -}}
- name: {{ .name }}
  image: {{ include "northbridge.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ toJson (concat .args (list "--config" "/etc/northbridge/config/northbridge.yaml")) }}
  # Its last output becomes part of the pod's status.
  terminationMessagePolicy: FallbackToLogsOnError
  {{- with include "northbridge.env" . }}
  env: {{- . | nindent 4 }}
  {{- end }}
  resources: {{- toYaml .resources | nindent 4 }}
  {{- include "northbridge.containerSecurity" . | nindent 2 }}
  volumeMounts:
    {{- include "northbridge.volumeMounts" . | nindent 4 }}
{{- end -}}

{{/* Liveness means that the process answers: a restart does not bring Kafka back. */}}
{{- define "northbridge.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ . }}
{{- end -}}
