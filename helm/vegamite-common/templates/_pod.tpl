{{/*
The pod that every workload, Job and test has. What it may do is the least: no root, nothing writable but /tmp, no token of the
cluster, no capability. It is described by
  (dict root component args configMap postgres [command] [resources] [ports] [probes] [lifecycle] [graceSeconds] [restartPolicy]
        [accountName] [extended] [spread] [claim])
`claim` is a volume of its own, (dict name claim path), besides what every pod has.
`extended` says that it is the service's own pod, with what the values add to it.
*/}}

{{- define "vegamite-common.podSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ .accountName }}
{{- include "vegamite-common.imagePullSecrets" $root }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with .graceSeconds }}
terminationGracePeriodSeconds: {{ int . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .extended }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "vegamite-common.topologySpread" $root }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "vegamite-common.image" (list $root $values.image $root.Chart.AppVersion) }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command:
      {{- toYaml (.command | default (list (print "vegamite-" $root.Chart.Name))) | nindent 6 }}
    {{- with .args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .ports }}
    ports:
      {{- range $name, $port := . }}
      - name: {{ $name }}
        containerPort: {{ $port }}
        protocol: TCP
      {{- end }}
    {{- end }}
    {{- with include "vegamite-common.environment" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .probes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .lifecycle }}
    lifecycle:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml (.resources | default $values.resources) | nindent 6 }}
    securityContext:
      {{- toYaml $values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "vegamite-common.volumeMounts" . | nindent 6 }}
volumes:
  {{- include "vegamite-common.volumes" . | nindent 2 }}
{{- end -}}

{{/* Environment: where the secrets are, what the values say, and for the service's own pod what they bring from elsewhere. */}}
{{- define "vegamite-common.environment" -}}
{{- $values := .root.Values -}}
{{- $variables := list -}}
{{- if and .configMap (include "vegamite-common.secretFiles" . | fromJsonArray) -}}
  {{- $variables = append $variables (dict "name" "VEGAMITE_SECRETS_DIR" "value" "/etc/vegamite/secrets") -}}
{{- end -}}
{{- if .configMap -}}
  {{- range $name, $value := $values.env -}}
    {{- $variables = append $variables (dict "name" $name "value" (toString $value)) -}}
  {{- end -}}
  {{- $variables = concat $variables ($values.extraEnv | default list) -}}
{{- end -}}
{{- $variables = concat $variables (.env | default list) -}}
{{- with $variables }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and .configMap $values.extraEnvFrom }}
envFrom:
  {{- toYaml $values.extraEnvFrom | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The files of secrets that a pod is given, as a JSON list of (dict volume path sources): one volume a section of the configuration, so
that Kubernetes' event names the one that is missing.
*/}}
{{- define "vegamite-common.secretFiles" -}}
{{- $root := .root -}}
{{- $volumes := list -}}
{{- $postgres := .postgres -}}
{{- $items := list -}}
{{- if $postgres.urlSecret -}}
  {{- $items = append $items (dict "secret" $postgres.urlSecret "key" $postgres.urlKey "path" "url") -}}
{{- end -}}
{{- if $postgres.existingSecret -}}
  {{- $items = append $items (dict "secret" $postgres.existingSecret "key" $postgres.passwordKey "path" "password") -}}
{{- end -}}
{{- if $items -}}
  {{- $volumes = append $volumes (dict "name" "postgres-secret" "path" "/etc/vegamite/secrets/postgres" "items" $items) -}}
{{- end -}}
{{- $kafka := include "vegamite-common.kafka" $root | fromJson -}}
{{- $items = list -}}
{{- if and (hasPrefix "SASL" $kafka.securityProtocol) $kafka.sasl.existingSecret -}}
  {{- $items = append $items (dict "secret" $kafka.sasl.existingSecret "key" $kafka.sasl.passwordKey "path" "sasl_password") -}}
{{- end -}}
{{- if and (hasSuffix "SSL" $kafka.securityProtocol) $kafka.tls.keyPasswordKey -}}
  {{- $items = append $items (dict "secret" $kafka.tls.clientSecret "key" $kafka.tls.keyPasswordKey "path" "ssl_key_password") -}}
{{- end -}}
{{- if $items -}}
  {{- $volumes = append $volumes (dict "name" "kafka-secret" "path" "/etc/vegamite/secrets/kafka" "items" $items) -}}
{{- end -}}
{{- with $root.influxdb -}}
  {{- $volumes = append $volumes (dict "name" "influxdb-secret" "path" "/etc/vegamite/secrets/influxdb"
    "items" (list (dict "secret" .existingSecret "key" .tokenKey "path" "token"))) -}}
{{- end -}}
{{- range $exchange, $account := $root.Values.exchangeSecrets | default dict -}}
  {{- $items = list -}}
  {{- if $account.apiKeyKey }}{{ $items = append $items (dict "secret" $account.existingSecret "key" $account.apiKeyKey "path" "api_key") }}{{ end -}}
  {{- if $account.apiSecretKey }}{{ $items = append $items (dict "secret" $account.existingSecret "key" $account.apiSecretKey "path" "api_secret") }}{{ end -}}
  {{- if $account.apiPasswordKey }}{{ $items = append $items (dict "secret" $account.existingSecret "key" $account.apiPasswordKey "path" "api_password") }}{{ end -}}
  {{- $volumes = append $volumes (dict "name" (printf "exchange-%s-secret" $exchange) "path" (printf "/etc/vegamite/secrets/exchanges/%s" $exchange) "items" $items) -}}
{{- end -}}
{{- $volumes | toJson -}}
{{- end -}}

{{/* The certificates that a pod is given, in the same shape. */}}
{{- define "vegamite-common.certificateFiles" -}}
{{- $volumes := list -}}
{{- $kafka := include "vegamite-common.kafka" .root | fromJson -}}
{{- if hasSuffix "SSL" $kafka.securityProtocol -}}
  {{- if $kafka.tls.existingSecret -}}
    {{- $volumes = append $volumes (dict "name" "kafka-ca" "path" "/etc/vegamite/tls/kafka"
      "items" (list (dict "secret" $kafka.tls.existingSecret "key" $kafka.tls.caKey "path" "ca.crt"))) -}}
  {{- end -}}
  {{- if $kafka.tls.certKey -}}
    {{- $volumes = append $volumes (dict "name" "kafka-client" "path" "/etc/vegamite/tls/kafka-client" "items" (list
      (dict "secret" $kafka.tls.clientSecret "key" $kafka.tls.certKey "path" "tls.crt")
      (dict "secret" $kafka.tls.clientSecret "key" $kafka.tls.keyKey "path" "tls.key"))) -}}
  {{- end -}}
{{- end -}}
{{- if .postgres.tls.existingSecret -}}
  {{- $volumes = append $volumes (dict "name" "postgres-ca" "path" "/etc/vegamite/tls/postgres"
    "items" (list (dict "secret" .postgres.tls.existingSecret "key" .postgres.tls.caKey "path" "ca.crt"))) -}}
{{- end -}}
{{- with .root.influxdb -}}
  {{- if .tls.existingSecret -}}
    {{- $volumes = append $volumes (dict "name" "influxdb-ca" "path" "/etc/vegamite/tls/influxdb"
      "items" (list (dict "secret" .tls.existingSecret "key" .tls.caKey "path" "ca.crt"))) -}}
  {{- end -}}
{{- end -}}
{{- $volumes | toJson -}}
{{- end -}}

{{- define "vegamite-common.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .configMap }}
- name: config
  mountPath: /etc/vegamite/vegamite.toml
  subPath: vegamite.toml
  readOnly: true
{{- range concat (include "vegamite-common.secretFiles" . | fromJsonArray) (include "vegamite-common.certificateFiles" . | fromJsonArray) }}
- name: {{ .name }}
  mountPath: {{ .path }}
  readOnly: true
{{- end }}
{{- with .claim }}
- name: {{ .name }}
  mountPath: {{ .path }}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "vegamite-common.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .root.Values.tmpSize }}
{{- if .configMap }}
- name: config
  configMap:
    name: {{ .configMap }}
{{- range concat (include "vegamite-common.secretFiles" . | fromJsonArray) (include "vegamite-common.certificateFiles" . | fromJsonArray) }}
{{ include "vegamite-common.secretVolume" . }}
{{- end }}
{{- with .claim }}
- name: {{ .name }}
  persistentVolumeClaim:
    claimName: {{ .claim }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A volume of files from one secret, or where they come from several, from those. The files' mode is 0440. */}}
{{- define "vegamite-common.secretVolume" -}}
{{- $secrets := list -}}
{{- range .items }}{{ $secrets = append $secrets .secret }}{{ end -}}
- name: {{ .name }}
{{- if eq (len (uniq $secrets)) 1 }}
  secret:
    secretName: {{ first $secrets }}
    defaultMode: 288
    items:
      {{- range .items }}
      - key: {{ .key | quote }}
        path: {{ .path }}
      {{- end }}
{{- else }}
  projected:
    defaultMode: 288
    sources:
      {{- range .items }}
      - secret:
          name: {{ .secret }}
          items:
            - key: {{ .key | quote }}
              path: {{ .path }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Several replicas stand in different zones and on different nodes as far as that goes, unless the values say otherwise. */}}
{{- define "vegamite-common.topologySpread" -}}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if gt (include "vegamite-common.mostReplicas" . | int) 1 }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "vegamite-common.selector" (list $ (include "vegamite-common.component" $)) | nindent 8 }}
    matchLabelKeys:
      - pod-template-hash
  {{- end }}
{{- end }}
{{- end -}}
