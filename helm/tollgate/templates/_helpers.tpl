{{- define "tollgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tollgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tollgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tollgate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tollgate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* Name of the secret behind one entry of .Values.secrets: list context name value */}}
{{- define "tollgate.secretName" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}{{- $entry := index . 2 -}}
{{- default (printf "%s-%s" (include "tollgate.fullname" $root) $name) $entry.existingSecret }}
{{- end }}

{{/* Value of a secret that the chart makes: as given, else what is there already, else random: list context secretName key value */}}
{{- define "tollgate.secretValue" -}}
{{- $root := index . 0 }}{{- $secret := index . 1 }}{{- $key := index . 2 }}{{- $value := index . 3 }}
{{- if $value -}}
{{ $value | b64enc }}
{{- else -}}
{{- $old := lookup "v1" "Secret" $root.Release.Namespace $secret }}
{{- if and $old $old.data (index $old.data $key) -}}
{{ index $old.data $key }}
{{- else -}}
{{ randAlphaNum 48 | b64enc }}
{{- end }}
{{- end }}
{{- end }}

{{/* The configuration as text. Helm reads values as YAML 1.1, where a bare `on` is the truth value: a rule's key comes back as "true". */}}
{{- define "tollgate.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $rules := list }}
{{- range $rule := $config.quotas }}
{{- $rule = deepCopy $rule }}
{{- if hasKey $rule "true" }}
{{- $_ := set $rule "on" (index $rule "true") }}
{{- $_ := unset $rule "true" }}
{{- end }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- if $rules }}
{{- $_ := set $config "quotas" $rules }}
{{- end }}
{{- toYaml $config }}
{{- end }}
