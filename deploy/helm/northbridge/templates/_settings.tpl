{{/* northbridge's settings: the content of the ConfigMap, and the values that templates derive from it. */}}

{{- define "northbridge.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if include "northbridge.tlsSecret" . -}}
{{- $tls := dict "certificate_file" "/etc/northbridge/tls/tls.crt" "key_file" "/etc/northbridge/tls/tls.key" -}}
{{- if .Values.tls.clientCertificates -}}
{{- $_ := set $tls "client_ca_file" "/etc/northbridge/tls/ca.crt" -}}
{{- end -}}
{{- if .Values.tls.clientRevocationLists -}}
{{- if not .Values.tls.clientCertificates -}}
{{- fail "tls.clientRevocationLists needs tls.clientCertificates: nothing else is revoked" -}}
{{- end -}}
{{- $_ := set $tls "client_crl_file" "/etc/northbridge/tls/ca.crl" -}}
{{- end -}}
{{- $_ := set $config "tls" (merge $tls (default dict $config.tls)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The Secret with the listener's certificate; empty without TLS. */}}
{{- define "northbridge.tlsSecret" -}}
{{- default (ternary (printf "%s-tls" (include "northbridge.fullname" .)) "" .Values.tls.certificate.enabled) .Values.tls.secretName -}}
{{- end -}}

{{- define "northbridge.scheme" -}}
{{- ternary "https" "http" (ne (include "northbridge.tlsSecret" .) "") -}}
{{- end -}}

{{/* The Secret with the values under `secrets`; empty if there are none. */}}
{{- define "northbridge.secret" -}}
{{- range $setting, $from := .Values.secrets }}
{{- if hasKey $from "value" }}
{{ $setting }}: {{ $from.value | b64enc }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port of an address setting: "http.listen" or "admin.listen". */}}
{{- define "northbridge.httpPort" -}}
{{- dig "http" "listen" "0.0.0.0:8080" .Values.config | regexFind "[0-9]+$" -}}
{{- end -}}
{{- define "northbridge.adminPort" -}}
{{- dig "admin" "listen" "0.0.0.0:8081" .Values.config | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* The brokers as one string, separated by commas. */}}
{{- define "northbridge.brokers" -}}
{{- $servers := .Values.config.kafka.bootstrap_servers -}}
{{- if kindIs "string" $servers -}}{{- $servers | replace " " "" -}}{{- else -}}{{- join "," $servers -}}{{- end -}}
{{- end -}}

{{/* The paths for pushes, as prefixes; without the secret token. */}}
{{- define "northbridge.paths" -}}
{{- range dig "http" "paths" (list "/notifications") .Values.config }}
- {{ default "/" (regexReplaceAll "/\\{token\\}.*" . "") }}
{{- end }}
{{- end -}}

{{/* The full name of a topic, with its prefix. */}}
{{- define "northbridge.topic" -}}
{{- $default := .topic | replace "_" "-" -}}
{{- printf "%s%s" (dig "topics" "prefix" "iot." .config) (dig "topics" .topic "name" $default .config) -}}
{{- end -}}

{{/*
Seconds until Kubernetes kills a pod. A terminating pod announces it until every
node and load balancer knows, answers requests in progress, and settles them with
Kafka: each phase must end before the limit of the next.
*/}}
{{- define "northbridge.gracePeriod" -}}
{{- $announce := dig "shutdown" "announce_ms" 5000 .Values.config | int64 -}}
{{- $deadline := dig "shutdown" "deadline_ms" 25000 .Values.config | int64 -}}
{{- $answer := dig "http" "answer_deadline_ms" 13000 .Values.config | int64 -}}
{{- $propagation := mul 1000 (int64 .Values.ingress.endpointPropagationSeconds) -}}
{{- if lt $announce $propagation -}}
{{- fail (printf "config.shutdown.announce_ms is %d, and must be at least ingress.endpointPropagationSeconds (%d ms): a pod must not close its listener while it is still sent pushes" $announce $propagation) -}}
{{- end -}}
{{- if le $deadline (add $announce $answer) -}}
{{- fail (printf "config.shutdown.deadline_ms is %d, and must be more than config.shutdown.announce_ms and config.http.answer_deadline_ms together (%d): what was accepted must be answered" $deadline (add $announce $answer)) -}}
{{- end -}}
{{- $needed := div (add $deadline 999) 1000 -}}
{{- with .Values.pod.terminationGracePeriodSeconds -}}
{{- if le (int64 .) $needed -}}
{{- fail (printf "pod.terminationGracePeriodSeconds is %d, and must be more than config.shutdown.deadline_ms (%d ms): a pod must not be killed before it has settled everything" (int64 .) $deadline) -}}
{{- end -}}
{{- end -}}
{{- default (add $needed 5) .Values.pod.terminationGracePeriodSeconds | int64 -}}
{{- end -}}

{{/* The bytes in a quantity of Kubernetes; empty if it has an unusual unit. */}}
{{- define "northbridge.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $unit := trimPrefix $number . -}}
{{- if and $number (hasKey $units $unit) -}}{{- mulf $number (get $units $unit) | int64 -}}{{- end -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/* Fails if the volume of the spool is smaller than what the spool may hold. */}}
{{- define "northbridge.spoolFits" -}}
{{- $most := dig "spool" "max_bytes" 1073741824 .Values.config | int64 -}}
{{- with include "northbridge.bytes" .Values.ingress.spool.size -}}
{{- if lt (int64 .) (div (mul $most 11) 10) -}}
{{- fail (printf "ingress.spool.size is %v, and must be a tenth more than config.spool.max_bytes (%d)" $.Values.ingress.spool.size $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails if the memory of an ingress does not suffice for its limits, by the figures of src/ingress/capacity.rs. */}}
{{- define "northbridge.memory" -}}
{{- $connection := ternary 30000 23000 (eq (include "northbridge.scheme" .) "https") -}}
{{- $connections := dig "limits" "max_connections" 10000 .Values.config | int64 -}}
{{- $in_flight := dig "limits" "max_in_flight_bytes" 67108864 .Values.config | int64 -}}
{{- $needed := add 50331648 (mul $connections $connection) (mul 2 $in_flight) -}}
{{- $memory := dig "limits" "memory" "" .Values.ingress.resources -}}
{{- with include "northbridge.bytes" $memory -}}
{{- if lt (int64 .) $needed -}}
{{- fail (printf "ingress.resources.limits.memory is %v, and config.limits.max_connections (%d) and config.limits.max_in_flight_bytes (%d) may need %d MiB: raise that, or lower them" $memory $connections $in_flight (div (add $needed 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
