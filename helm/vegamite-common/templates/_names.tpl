{{/*
Names and labels. A name leaves room for the longest suffix (-management, -migration-12345), since a name in Kubernetes has 63 characters.
*/}}

{{/* A text as a name of at most so many characters, of (list text limit): no dots, and one that is too long ends in a mark of the whole. */}}
{{- define "vegamite-common.shortened" -}}
{{- $text := index . 0 | replace "." "-" -}}
{{- $limit := index . 1 | int -}}
{{- if gt (len $text) $limit -}}
{{- printf "%s-%s" ($text | trunc (sub $limit 7 | int) | trimSuffix "-") (sha256sum $text | trunc 6) -}}
{{- else -}}
{{- $text -}}
{{- end -}}
{{- end -}}

{{/* The name of one part of a release, of (list root part): release "x" gives x-part, release "part" or "x-part" isn't doubled. */}}
{{- define "vegamite-common.partName" -}}
{{- $release := (index . 0).Release.Name -}}
{{- $part := index . 1 -}}
{{- if or (eq $release $part) (hasSuffix (print "-" $part) $release) -}}
{{- include "vegamite-common.shortened" (list $release 46) -}}
{{- else -}}
{{- printf "%s-%s" (include "vegamite-common.shortened" (list $release (sub 45 (len $part)))) $part -}}
{{- end -}}
{{- end -}}

{{/* The name of this chart's workload. */}}
{{- define "vegamite-common.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- include "vegamite-common.shortened" (list .Values.fullnameOverride 46) -}}
{{- else -}}
{{- include "vegamite-common.partName" (list . .Chart.Name) -}}
{{- end -}}
{{- end -}}

{{/* The name of the account that the pods run under; of a Job before the release, which can't use what isn't there yet, see there. */}}
{{- define "vegamite-common.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "vegamite-common.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Which component the root is of: the chart's own service, or the sink where `asSink` made it. */}}
{{- define "vegamite-common.component" -}}
{{- .component | default .Chart.Name -}}
{{- end -}}

{{/* What selects the pods of one component, of (list root component): nothing here may ever change. */}}
{{- define "vegamite-common.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object of one component, of (list root component). */}}
{{- define "vegamite-common.labels" -}}
{{- $root := index . 0 -}}
{{ include "vegamite-common.selector" . }}
app.kubernetes.io/part-of: vegamite
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* Labels of a pod, of (list root component): no version, so that a new chart alone restarts nothing. */}}
{{- define "vegamite-common.podLabels" -}}
{{ include "vegamite-common.selector" . }}
app.kubernetes.io/part-of: vegamite
{{- end -}}

{{/* metadata of an object, of (dict root name component [annotations] [labels]). */}}
{{- define "vegamite-common.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "vegamite-common.labels" (list .root .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's name, of (list root image tag): image is a table of values, tag is what stands where it names none. */}}
{{- define "vegamite-common.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $image.registry | default ($root.Values.global | default dict).imageRegistry | default "" | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ $image.tag | default (index . 2) }}
{{- end -}}
{{- end -}}

{{/* Secrets to pull images with: the release's and the chart's own. */}}
{{- define "vegamite-common.imagePullSecrets" -}}
{{- with concat ((.Values.global | default dict).imagePullSecrets | default list) (.Values.imagePullSecrets | default list) | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Whether the release is a try-out with a Kafka and a PostgreSQL of its own: "true" or nothing. */}}
{{- define "vegamite-common.quickstart" -}}
{{- if (.Values.global | default dict).quickstart -}}true{{- end -}}
{{- end -}}

{{/* The cluster's domain, as Services are called by. */}}
{{- define "vegamite-common.clusterDomain" -}}
{{- (.Values.global | default dict).clusterDomain | default "cluster.local" -}}
{{- end -}}
