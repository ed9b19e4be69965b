{{/*
Who may speak with whom. A policy that selects a pod refuses everything that it doesn't name; each rule here says what it is for.
*/}}

{{/* The policy of the service's own pods. */}}
{{- define "vegamite-common.networkPolicy" -}}
{{- if and .Values.enabled .Values.networkPolicy.enabled -}}
{{- $policy := .Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .)
    "component" (include "vegamite-common.component" .)) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . (include "vegamite-common.component" .)) | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  ingress:
    {{- if eq .Chart.Name "api" }}
    # Clients.
    - ports:
        - port: http
          protocol: TCP
      {{- with $policy.http.from }}
      from:
        {{- toYaml . | nindent 8 }}
        {{- include "vegamite-common.testPeer" $ | nindent 8 }}
      {{- end }}
    {{- end }}
    # Prometheus, and the test of the release.
    - ports:
        - port: management
          protocol: TCP
      from:
        {{- with $policy.management.from }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "vegamite-common.testPeer" . | nindent 8 }}
    {{- with $policy.extraIngress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  egress:
    {{- include "vegamite-common.egress" (list . (include "vegamite-common.postgres" . | fromJson)) | nindent 4 }}
    {{- if eq .Chart.Name "collector" }}
    {{- include "vegamite-common.exchangeEgress" . | nindent 4 }}
    {{- end }}
    {{- with $policy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.testPeer" -}}
- podSelector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . "test") | nindent 6 }}
{{- end -}}

{{/* To names, Kafka and PostgreSQL, of (list root postgres); for the sink InfluxDB, and PostgreSQL where it reads there. */}}
{{- define "vegamite-common.egress" -}}
{{- $root := index . 0 -}}
{{- $postgres := index . 1 -}}
{{- $policy := $root.Values.networkPolicy -}}
{{- $kafka := include "vegamite-common.kafka" $root | fromJson -}}
{{- $quickstart := include "vegamite-common.quickstart" $root -}}
{{ include "vegamite-common.dnsEgress" $policy.dns }}
# Kafka.
- ports:
    {{- range concat (include "vegamite-common.kafkaPorts" $kafka | fromJsonArray) $policy.kafka.ports | uniq }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- if $quickstart }}
  to:
    {{- include "vegamite-common.quickstartPeer" (list $root "kafka") | nindent 4 }}
  {{- else }}
  {{- with $policy.kafka.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- with $root.influxdb }}
# InfluxDB.
- ports:
    {{- range concat (list (include "vegamite-common.influxdbPort" .url)) $policy.influxdb.ports | uniq }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- with $policy.influxdb.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if or $postgres.host $postgres.urlSecret }}
# PostgreSQL.
- ports:
    {{- range concat (list $postgres.port) $policy.postgres.ports | uniq }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- if $quickstart }}
  to:
    {{- include "vegamite-common.quickstartPeer" (list $root "postgres") | nindent 4 }}
  {{- else }}
  {{- with $policy.postgres.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The port that InfluxDB's address leads to. */}}
{{- define "vegamite-common.influxdbPort" -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" -}}
{{- $port | default (ternary "443" "80" (hasPrefix "https:" .)) -}}
{{- end -}}

{{- define "vegamite-common.dnsEgress" -}}
# Names.
- ports:
    {{- range .ports }}
    - port: {{ int . }}
      protocol: UDP
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "vegamite-common.quickstartPeer" -}}
{{- $root := index . 0 -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ $root.Release.Name }}
      app.kubernetes.io/component: {{ index . 1 }}
      app.kubernetes.io/part-of: vegamite
{{- end -}}

{{- define "vegamite-common.exchangeEgress" -}}
{{- with .Values.networkPolicy.exchanges -}}
{{- if and .enabled .to -}}
# Exchanges: the internet, but nothing private.
- ports:
    {{- range .ports }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  to:
    {{- toYaml .to | nindent 4 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The policy of a Job, of (dict root name component annotations postgres): out to names, Kafka and PostgreSQL, nothing in. */}}
{{- define "vegamite-common.jobNetworkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "vegamite-common.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "vegamite-common.selector" (list .root .component) | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  egress:
    {{- include "vegamite-common.egress" (list .root .postgres) | nindent 4 }}
    {{- with .root.Values.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The policy of the release's test: names, and the service. It comes with the release, for a test may run at any time. */}}
{{- define "vegamite-common.testNetworkPolicy" -}}
{{- if and .Values.enabled .Values.networkPolicy.enabled .Values.tests.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (printf "%s-test" (include "vegamite-common.fullname" .)) "component" "test") | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . "test") | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  egress:
    {{- include "vegamite-common.dnsEgress" .Values.networkPolicy.dns | nindent 4 }}
    # The service.
    - to:
        - podSelector:
            matchLabels:
              {{- include "vegamite-common.selector" (list . .Chart.Name) | nindent 14 }}
        {{- if (.Values.sink | default dict).enabled }}
        - podSelector:
            matchLabels:
              {{- include "vegamite-common.selector" (list . "sink") | nindent 14 }}
        {{- end }}
{{- end -}}
{{- end -}}
