{{/* What the pods of all components have in common. */}}

{{/* `annotations` of a pod template: a changed setting makes a new revision. */}}
{{- define "northbridge.podAnnotations" -}}
checksum/config: {{ include "northbridge.config" . | sha256sum }}
{{- with include "northbridge.secret" . }}
checksum/secret: {{ . | sha256sum }}
{{- end }}
{{- with .Values.pod.annotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes: root, component. */}}
{{- define "northbridge.podLabels" -}}
{{ include "northbridge.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.pod.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The restricted profile of Pod Security, and the user of the image. */}}
{{- define "northbridge.podSecurity" -}}
automountServiceAccountToken: false
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

{{- define "northbridge.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.pod.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
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

{{/* Variables that name the files of secrets, one per setting. */}}
{{- define "northbridge.env" -}}
{{- range $setting, $from := .Values.secrets }}
- name: NORTHBRIDGE__{{ $setting | replace "." "__" | upper }}_FILE
  value: /etc/northbridge/secrets/{{ $setting }}
{{- end }}
{{- with .Values.pod.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "northbridge.volumeMounts" -}}
- {name: config, mountPath: /etc/northbridge/config, readOnly: true}
{{- if .Values.secrets }}
- {name: secrets, mountPath: /etc/northbridge/secrets, readOnly: true}
{{- end }}
{{- with .Values.pod.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes: root, name of the ConfigMap and of the chart's own Secret. */}}
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
{{- with .root.Values.pod.volumes }}
{{ toYaml . }}
{{- end }}
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
