{{/* Names, labels, and what follows from the settings. */}}

{{- define "understudy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Kept to 40 characters: objects add up to 23 of their own. */}}
{{- define "understudy.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "understudy.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "understudy.selector" -}}
app.kubernetes.io/name: {{ include "understudy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "understudy.labels" -}}
{{ include "understudy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: understudy
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An object's metadata. `root`, and optionally `name`, `component`, `labels`, `annotations`, `namespace`. */}}
{{- define "understudy.metadata" -}}
name: {{ .name | default (include "understudy.fullname" .root) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{ include "understudy.ownMetadata" . }}
{{- end }}

{{- define "understudy.ownMetadata" -}}
labels:
  {{- include "understudy.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "understudy.image" -}}
{{- $repository := required "\n\nimage.repository: name the image that you built from the Containerfile, such as registry.example.com/ai/understudy" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "understudy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "understudy.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* The settings file: `config`, and what follows from the rest of the values. */}}
{{- define "understudy.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if and .Values.worker.enabled (not (hasKey ($config.ingestion | default dict) "embedded_worker")) }}
{{- $_ := set $config "ingestion" (merge (dict "embedded_worker" false) ($config.ingestion | default dict)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "understudy.port" -}}
{{- ((.Values.config).server).port | default 8321 | int }}
{{- end }}

{{/* Empty where probes and metrics are on the API's port. */}}
{{- define "understudy.managementPort" -}}
{{- with ((.Values.config).server).management_port }}{{ int . }}{{ end }}
{{- end }}

{{- define "understudy.probePort" -}}
{{- if include "understudy.managementPort" . }}http-management{{ else }}http{{ end }}
{{- end }}

{{- define "understudy.shutdownGrace" -}}
{{- ((.Values.config).server).shutdown_grace_seconds | default 30 | int }}
{{- end }}

{{/* Seconds from the deletion of a pod until it takes no new requests. */}}
{{- define "understudy.unready" -}}
{{- add (int .Values.preStopSleepSeconds) (((.Values.config).server).drain_seconds | default 0 | ceil | int) }}
{{- end }}

{{/* Seconds from the deletion of a pod until its running requests have had their time. */}}
{{- define "understudy.drain" -}}
{{- add (include "understudy.unready" . | int) (include "understudy.shutdownGrace" . | int) }}
{{- end }}

{{- define "understudy.terminationGrace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add (include "understudy.drain" . | int) 35 }}
{{- else }}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{/* The names of the variables that the pods get one by one, as a list in JSON. */}}
{{- define "understudy.variables" -}}
{{- $names := keys (.Values.secretEnv | default dict) }}
{{- range .Values.extraEnv }}{{ $names = append $names .name }}{{ end }}
{{- toJson ($names | sortAlpha) }}
{{- end }}

{{/* What a setting is: of a variable, `from elsewhere` where its value isn't among the values. */}}
{{- define "understudy.setting" -}}
{{- $found := .value | default .default }}
{{- $name := .variable }}
{{- if hasKey (.root.Values.secretEnv | default dict) $name }}{{ $found = "from elsewhere" }}{{ end }}
{{- range .root.Values.extraEnv }}{{ if eq .name $name }}{{ $found = .value | default "from elsewhere" }}{{ end }}{{ end }}
{{- $found }}
{{- end }}

{{/* What is kept in one pod: words for a message, or nothing where any replica will do. */}}
{{- define "understudy.embedded" -}}
{{- $embedded := list }}
{{- if not (include "understudy.postgres" .) }}
{{- $embedded = append $embedded "SQLite (set config.database.url to PostgreSQL)" }}
{{- end }}
{{- $objects := include "understudy.setting" (dict "root" . "value" ((.Values.config).objects).kind "variable" "UNDERSTUDY_OBJECTS__KIND" "default" "disk") }}
{{- if eq $objects "disk" }}
{{- $embedded = append $embedded "files on disk (set config.objects.kind to minio)" }}
{{- end }}
{{- $vectors := include "understudy.setting" (dict "root" . "value" ((.Values.config).vectors).uri "variable" "UNDERSTUDY_VECTORS__URI" "default" "milvus.db") }}
{{- /* A whole variable may be an address; a path, a file's address or a variable in a path is none. */}}
{{- if or (hasPrefix "file:" $vectors) (hasSuffix ".db" $vectors) (not (or (contains "://" $vectors) (regexMatch "^\\$\\{[A-Za-z0-9_]+\\}$" $vectors) (eq $vectors "from elsewhere"))) }}
{{- $embedded = append $embedded "Milvus Lite (set config.vectors.uri to a Milvus server)" }}
{{- end }}
{{- join ", " $embedded }}
{{- end }}

{{/* Where limits are counted by each process for itself: `true`, else nothing. */}}
{{- define "understudy.limitsInMemory" -}}
{{- if eq "memory" (include "understudy.setting" (dict "root" . "value" ((.Values.config).limits).store "variable" "UNDERSTUDY_LIMITS__STORE" "default" "database")) }}true{{ end }}
{{- end }}

{{- define "understudy.postgres" -}}
{{- if not (hasPrefix "sqlite" (include "understudy.setting" (dict "root" . "value" ((.Values.config).database).url "variable" "UNDERSTUDY_DATABASE__URL" "default" "sqlite"))) }}true{{ end }}
{{- end }}

{{- define "understudy.kserve" -}}
{{- $kserve := (.Values.config).kserve | default dict }}
{{- if or .Values.rbac.kserve.enabled $kserve.enabled }}true{{ end }}
{{- end }}

{{/* The namespaces whose InferenceServices may be read, as a list in JSON. */}}
{{- define "understudy.kserveNamespaces" -}}
{{- $own := list .Release.Namespace }}
{{- .Values.rbac.kserve.namespaces | default ((.Values.config).kserve).namespaces | default $own | uniq | toJson }}
{{- end }}

{{- define "understudy.tokenReview" -}}
{{- if or .Values.rbac.tokenReview.enabled (eq (((.Values.config).identity).mode | default "none") "kubernetes") }}true{{ end }}
{{- end }}

{{- define "understudy.trustedCA" -}}
{{- if or .Values.trustedCA.inject .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}true{{ end }}
{{- end }}

{{/* Annotations that make an object a hook of Helm, of Argo CD or of both. */}}
{{- define "understudy.hooks" -}}
{{- if .root.Values.migrationJob.hooks.helm }}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end }}
{{- if .root.Values.migrationJob.hooks.argocd }}
argocd.argoproj.io/hook: PreSync
argocd.argoproj.io/sync-wave: {{ .weight | quote }}
argocd.argoproj.io/hook-delete-policy: BeforeHookCreation
{{- end }}
{{- end }}

{{- define "understudy.migrates" -}}
{{- if and .Values.migrationJob.enabled (include "understudy.postgres" .) }}true{{ end }}
{{- end }}

{{- define "understudy.migrationHooked" -}}
{{- if and (include "understudy.migrates" .) (or .Values.migrationJob.hooks.helm .Values.migrationJob.hooks.argocd) }}true{{ end }}
{{- end }}
