{{/*
More of what `validate` refuses, as JSON lists of sentences, of a chart's root: what would be readable by everybody, what would be laid
over something that the rest of the chart stands on, and what was switched on by half.
*/}}

{{/* Secrets in places that aren't secret. */}}
{{- define "vegamite-common.exposedSecrets" -}}
{{- $problems := list -}}
{{- $config := .Values.config | default dict -}}
{{- range $section, $keys := dict "kafka" (list "sasl_password" "ssl_key_password") "postgres" (list "password") "influxdb" (list "token") -}}
  {{- range $key := $keys -}}
    {{- if hasKey (get $config $section | default dict) $key -}}
      {{- $problems = append $problems (printf "config.%s.%s is a secret and would be readable in a ConfigMap: put it in a Secret and name that in %s" $section $key (get (dict "kafka" "kafka.sasl.existingSecret or kafka.tls.keyPasswordKey" "postgres" "postgres.existingSecret" "influxdb" "sink.existingSecret") $section)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $exchange, $section := $config.exchanges | default dict -}}
  {{- range $key := list "api_key" "api_secret" "api_password" -}}
    {{- if and (kindIs "map" $section) (hasKey $section $key) -}}
      {{- $problems = append $problems (printf "config.exchanges.%s.%s is a secret and would be readable in a ConfigMap: put it in a Secret and name that in exchangeSecrets.%s" $exchange $key $exchange) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $secret := "(?i)^VEGAMITE_.*(PASSWORD|API_KEY|API_SECRET|TOKEN|POSTGRES__URL)$" -}}
{{- range $name, $value := .Values.env -}}
  {{- if regexMatch $secret $name -}}
    {{- $problems = append $problems (printf "env.%s is a secret and would be readable in the Deployment: put it in a Secret, and name that in existingSecret, urlSecret or extraEnv (secretKeyRef)" $name) -}}
  {{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
  {{- if and (regexMatch $secret (.name | default "")) .value -}}
    {{- $problems = append $problems (printf "extraEnv: %s is a secret and would be readable in the Deployment: take it from a Secret (valueFrom.secretKeyRef)" .name) -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* Keys of `config` that Services, probes, volumes and policies stand on; each has a value of the chart instead. */}}
{{- define "vegamite-common.ownedKeys" -}}
{{- $chart := .Chart.Name -}}
{{- $problems := list -}}
{{- $owned := dict
  "kafka" (dict "bootstrap_servers" "kafka.bootstrapServers" "security_protocol" "kafka.securityProtocol" "sasl_mechanism" "kafka.sasl.mechanism"
    "sasl_username" "kafka.sasl.username" "ssl_ca_file" "kafka.tls.existingSecret" "ssl_cert_file" "kafka.tls.certKey"
    "ssl_key_file" "kafka.tls.keyKey" "topics" "kafka.topics")
  "postgres" (dict "url" "postgres.host and its neighbours, or postgres.urlSecret")
  "influxdb" (dict "url" "sink.url" "read_revised" "sink.readRevised" "ssl_ca_file" "sink.tls.existingSecret")
  $chart (dict "management_port" "nothing: probes and monitors ask at 8001")
-}}
{{- if eq $chart "api" -}}
  {{- $_ := set $owned.api "port" "service.port: the pods listen at 8000" -}}
  {{- $_ := set $owned.api "allowed_hosts" "allowedHosts" -}}
{{- end -}}
{{- range $section, $keys := $owned -}}
  {{- $given := get ($.Values.config | default dict) $section | default dict -}}
  {{- range $key, $instead := $keys -}}
    {{- if hasKey $given $key -}}
      {{- $problems = append $problems (printf "config.%s.%s isn't for config, since more than the configuration depends on it: set %s" $section $key $instead) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What is switched on and lacks what it needs. */}}
{{- define "vegamite-common.halfSet" -}}
{{- $problems := list -}}
{{- $ingress := .Values.ingress | default dict -}}
{{- if and $ingress.enabled (not $ingress.hosts) -}}
  {{- $problems = append $problems "ingress.enabled needs ingress.hosts: the names by which clients come, as [{ host: vegamite.example.org }]" -}}
{{- end -}}
{{- $route := .Values.httpRoute | default dict -}}
{{- if and $route.enabled (or (not $route.parentRefs) (not $route.hostnames)) -}}
  {{- $problems = append $problems "httpRoute.enabled needs httpRoute.parentRefs (the Gateway) and httpRoute.hostnames (the names by which clients come)" -}}
{{- end -}}
{{- $key := (.Values.tests | default dict).apiKey | default dict -}}
{{- if and $key.existingSecret (not $key.key) -}}
  {{- $problems = append $problems "tests.apiKey.existingSecret needs tests.apiKey.key: under which key the Secret has it" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/*
Fails where a Secret that the migration needs isn't there: a hook that waits for it in vain would say nothing until its deadline, and
no notes are printed then. Only where the cluster answers: each namespace has the ConfigMap that is asked for first.
*/}}
{{- define "vegamite-common.requireMigrationSecrets" -}}
{{- $root := .root -}}
{{- if lookup "v1" "ConfigMap" $root.Release.Namespace "kube-root-ca.crt" -}}
  {{- with include "vegamite-common.missingSecrets" . | trim -}}
    {{- fail (printf "\n\nThe migration can't run before this is in the namespace %s:\n  %s\n" $root.Release.Namespace .) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
