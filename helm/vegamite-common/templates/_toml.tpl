{{/*
TOML from tables. Helm's own toToml writes whole numbers of the values as floats, and Helm 3 and 4 differ in that; here a number
without a fraction is whole, for both.
*/}}

{{/* One value on one line. */}}
{{- define "vegamite-common.tomlValue" -}}
{{- if kindIs "map" . -}}
  {{- $parts := list -}}
  {{- range $key, $value := . -}}
    {{- if not (kindIs "invalid" $value) -}}
      {{- $parts = append $parts (printf "%s = %s" (include "vegamite-common.tomlKey" $key) (include "vegamite-common.tomlValue" $value)) -}}
    {{- end -}}
  {{- end -}}
  {{- if $parts }}{ {{ join ", " $parts }} }{{ else }}{}{{ end -}}
{{- else if kindIs "slice" . -}}
  {{- $parts := list -}}
  {{- range . }}{{ $parts = append $parts (include "vegamite-common.tomlValue" .) }}{{ end -}}
  [{{ join ", " $parts }}]
{{- else if kindIs "string" . -}}
  {{- toJson . -}}
{{- else if kindIs "bool" . -}}
  {{- . -}}
{{- else if kindIs "float64" . -}}
  {{- if eq (floor .) . -}}
    {{- printf "%.0f" . -}}
  {{- else -}}
    {{- toJson . -}}
  {{- end -}}
{{- else -}}
  {{- printf "%d" (int64 .) -}}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* A table and the tables in it, of (list path table): values first, as TOML wants it. */}}
{{- define "vegamite-common.tomlTable" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- $lines := list -}}
{{- range $key, $value := $table -}}
  {{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
    {{- $lines = append $lines (printf "%s = %s" (include "vegamite-common.tomlKey" $key) (include "vegamite-common.tomlValue" $value)) -}}
  {{- end -}}
{{- end -}}
{{- if $lines }}
[{{ $path }}]
{{ join "\n" $lines }}
{{ end -}}
{{- range $key, $value := $table -}}
  {{- if kindIs "map" $value -}}
    {{- include "vegamite-common.tomlTable" (list (printf "%s.%s" $path (include "vegamite-common.tomlKey" $key)) $value) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The file, of (dict root postgres). */}}
{{- define "vegamite-common.toml" -}}
# Made by the chart {{ .root.Chart.Name }} from its values.
{{ range $section, $table := include "vegamite-common.settings" . | fromJson -}}
{{- include "vegamite-common.tomlTable" (list (include "vegamite-common.tomlKey" $section) $table) -}}
{{- end -}}
{{- end -}}
