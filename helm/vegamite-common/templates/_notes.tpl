{{/* What the release's notes say of secrets that aren't there, of (dict root pod): pod as `secretFiles` takes it. */}}
{{- define "vegamite-common.missingSecrets" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- range concat (include "vegamite-common.secretFiles" . | fromJsonArray) (include "vegamite-common.certificateFiles" . | fromJsonArray) -}}
  {{- range .items }}
    {{- $secret := lookup "v1" "Secret" $namespace .secret }}
    {{- if not $secret }}
  - Secret {{ .secret }} (key {{ .key }})
    {{- else if not (hasKey ($secret.data | default dict) .key) }}
  - key {{ .key }} of the Secret {{ .secret }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "vegamite-common.notes" -}}
{{- if .Values.enabled }}
{{- $postgres := include "vegamite-common.postgres" . | fromJson }}
{{- if not (include "vegamite-common.quickstart" .) }}
{{- with include "vegamite-common.missingSecrets" (dict "root" . "postgres" $postgres) | trim }}

WARNING: the {{ $.Chart.Name }} can't start before this is in the namespace {{ $.Release.Namespace }}:
  {{ . }}
{{- end }}
{{- end }}
{{- if (.Values.sink | default dict).enabled }}
{{- $sink := dict }}
{{- include "vegamite-common.asSink" (list . $sink) }}
{{- with include "vegamite-common.missingSecrets" (dict "root" $sink "postgres" (include "vegamite-common.postgres" $sink | fromJson)) | trim }}

WARNING: the sink can't start before this is in the namespace {{ $.Release.Namespace }}:
  {{ . }}
{{- end }}
{{- end }}
{{- if and (or .Values.serviceMonitor.enabled .Values.podMonitor.enabled) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) }}

WARNING: the {{ .Chart.Name }}'s monitor was left away: this cluster has no Prometheus operator (monitoring.coreos.com/v1).
{{- end }}
{{- end }}
{{- end -}}

{{/* How one gets to a running api and what to do first there, of the api's root. */}}
{{- define "vegamite-common.apiNotes" -}}
{{- $name := include "vegamite-common.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
{{- $port := int .Values.service.port -}}
{{- $own := (.Values.config | default dict).api | default dict -}}
{{- $anonymous := ternary $own.anonymous_read (eq (include "vegamite-common.quickstart" .) "true") (hasKey $own "anonymous_read") -}}
The chart page and the API:
{{- if .Values.ingress.enabled }}
{{- range .Values.ingress.hosts }}
  http{{ if $.Values.ingress.tls }}s{{ end }}://{{ .host }}{{ .path | default "/" }}
{{- end }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- range .Values.httpRoute.hostnames }}
  https://{{ . }}/
{{- end }}
{{- end }}
  kubectl --namespace {{ $namespace }} port-forward service/{{ $name }} 8000:{{ $port }}
  http://127.0.0.1:8000

A key that may change what is tracked; it is shown this once:
  kubectl --namespace {{ $namespace }} exec deployment/{{ $name }} -- \
    vegamite-api keys create --config /etc/vegamite/vegamite.toml --name admin --scope admin

Follow a market:
  curl -X PUT http://127.0.0.1:8000/v1/tracked-markets -H "X-API-Key: $KEY" \
    -H 'Content-Type: application/json' -d '{"markets": ["kraken:BTC/USD"]}'
{{- if $anonymous }}

WARNING: everybody who reaches the api may read it (anonymous_read).
{{- end }}
{{- if and (eq .Values.service.type "LoadBalancer") (not .Values.service.loadBalancerSourceRanges) }}

WARNING: the load balancer forwards plain HTTP to everybody: keys could be read on the way. Use ingress or httpRoute with TLS, or set
service.loadBalancerSourceRanges.
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.tls) }}

WARNING: the Ingress has no TLS: keys could be read on the way.
{{- end }}
{{- if and (eq (include "vegamite-common.leastReplicas" .) "1") (not (include "vegamite-common.quickstart" .)) }}

One pod serves: while a node is drained nobody does. Two or more: replicas, or autoscaling.
{{- end }}
{{- end -}}
