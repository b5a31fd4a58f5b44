{{/* What a schema can't say. Each refusal names the value and the way out. */}}

{{- define "understudy.check" -}}
{{- $config := .Values.config | default dict }}
{{- $server := $config.server | default dict }}
{{- $identity := $config.identity | default dict }}
{{- $variables := include "understudy.variables" . | fromJsonArray }}

{{- if not (or $config.discover $config.models ($config.kserve).enabled (has "UNDERSTUDY_DISCOVER" $variables) (has "UNDERSTUDY_MODELS" $variables)) }}
{{- fail "\n\nconfig.discover: name at least one vLLM server, such as http://granite-predictor.models.svc:8080 (or give config.models, or set config.kserve.enabled: true)" }}
{{- end }}

{{- $more := "" }}
{{- if .Values.autoscaling.enabled }}{{ $more = "autoscaling.enabled" }}
{{- else if gt (int .Values.replicaCount) 1 }}{{ $more = printf "replicaCount %d" (int .Values.replicaCount) }}
{{- end }}
{{- if and $more (include "understudy.limitsInMemory" .) }}
{{- fail (printf "\n\n%s with config.limits.store memory: each pod would count for itself, and let in as much as is meant for all. Use database, or the address of a Redis" $more) }}
{{- end }}

{{- $embedded := include "understudy.embedded" . }}
{{- if $embedded }}
{{- if and (not $more) .Values.worker.enabled }}{{ $more = "worker.enabled" }}{{ end }}
{{- if and (not $more) .Values.strategy (ne (.Values.strategy.type | default "RollingUpdate") "Recreate") }}{{ $more = "strategy.type RollingUpdate" }}{{ end }}
{{- if $more }}
{{- fail (printf "\n\n%s: more than one pod can't share what is kept in one: %s" $more $embedded) }}
{{- end }}
{{- end }}

{{- if .Values.autoscaling.enabled }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "\n\nautoscaling.minReplicas: is more than autoscaling.maxReplicas" }}
{{- end }}
{{- if not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.targetMemoryUtilizationPercentage .Values.autoscaling.metrics) }}
{{- fail "\n\nautoscaling: give a target for CPU or memory, or metrics" }}
{{- end }}
{{- end }}

{{- if eq ($identity.mode | default "none") "none" }}
{{- if not $identity.allow_anonymous }}
{{- fail "\n\nconfig.identity.mode none: whoever reaches the Service could use every model and read every file. Choose api_keys, oidc, kubernetes or upstream_header, or set config.identity.allow_anonymous: true" }}
{{- end }}
{{- if and (or .Values.route.enabled .Values.ingress.enabled .Values.httpRoute.enabled) (not .Values.exposeWithoutIdentity) }}
{{- fail "\n\nconfig.identity.mode none with a Route, an Ingress or an HTTPRoute: the models would be open to everyone who finds the address. Choose another mode, or set exposeWithoutIdentity: true" }}
{{- end }}
{{- end }}

{{- if and (kindIs "bool" ($config.ingestion).embedded_worker) (not ($config.ingestion).embedded_worker) (not .Values.worker.enabled) }}
{{- fail "\n\nconfig.ingestion.embedded_worker false: nobody would bring files into vector stores. Set worker.enabled: true" }}
{{- end }}

{{- $host := $server.host | default "127.0.0.1" | toString }}
{{- if or (hasPrefix "127." $host) (eq $host "localhost") (eq $host "::1") }}
{{- fail (printf "\n\nconfig.server.host %s: nobody outside the pod would reach it. Leave it at 0.0.0.0" $host) }}
{{- end }}
{{- if $config.data_dir }}
{{- fail "\n\nconfig.data_dir: the chart sets it, to /var/lib/understudy" }}
{{- end }}
{{- if eq (include "understudy.port" .) (include "understudy.managementPort" .) }}
{{- fail "\n\nconfig.server.management_port: must differ from config.server.port" }}
{{- end }}
{{- $needed := include "understudy.drain" . | int }}
{{- if lt (include "understudy.terminationGrace" . | int) $needed }}
{{- fail (printf "\n\nterminationGracePeriodSeconds: running requests would be killed; at least preStopSleepSeconds, config.server.drain_seconds and config.server.shutdown_grace_seconds are needed, %d" $needed) }}
{{- end }}

{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "\n\nhttpRoute.parentRefs: name the gateway, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- $sources := list .Values.trustedCA.inject .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret | compact }}
{{- if gt (len $sources) 1 }}
{{- fail "\n\ntrustedCA: give one of inject, existingConfigMap and existingSecret" }}
{{- end }}

{{- if and .Values.mesh.enabled .Values.mesh.peerAuthentication.enabled (eq .Values.mesh.peerAuthentication.mode "STRICT") .Values.route.enabled }}
{{- fail "\n\nroute.enabled with mesh.peerAuthentication.mode STRICT: the router is outside the mesh and would get no answer. Use the mesh's own gateway (httpRoute), or mode PERMISSIVE" }}
{{- end }}

{{- include "understudy.checkSecrets" (dict "path" "config" "value" $config) }}

{{- if not (or .Values.existingSecret .Values.extraEnvFrom) }}
{{- $own := list "POD_NAME" "POD_NAMESPACE" "HOME" }}
{{- range regexFindAll "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" (toJson $config) -1 | uniq }}
{{- $name := trimSuffix "}" (trimPrefix "${" .) }}
{{- if not (or (has $name $variables) (has $name $own)) }}
{{- fail (printf "\n\nconfig: ${%s} is used, and nothing gives the pods a variable of that name. Name it in secretEnv or extraEnv, or its Secret in existingSecret" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A secret that stands in `config` would be readable by whoever may read ConfigMaps. */}}
{{- define "understudy.checkSecrets" -}}
{{- $path := .path }}
{{- if kindIs "map" .value }}
{{- range $key, $value := .value }}
{{- $at := printf "%s.%s" $path $key }}
{{- if kindIs "string" $value }}
{{- if and (has (lower $key) (list "api_key" "secret_key" "token" "password" "authorization" "client_secret" "x-api-key")) $value (not (contains "${" $value)) }}
{{- fail (printf "\n\n%s: a secret may not stand in the values. Write ${NAME}, and have NAME come from existingSecret or secretEnv" $at) }}
{{- end }}
{{- if and (regexMatch "://[^/@]*:[^/@]+@" $value) (not (regexMatch "://[^/@]*:\\$\\{[A-Za-z0-9_]+\\}@" $value)) }}
{{- fail (printf "\n\n%s: a password may not stand in the values. Write ${NAME} for it, and have NAME come from existingSecret or secretEnv" $at) }}
{{- end }}
{{- else }}
{{- include "understudy.checkSecrets" (dict "path" $at "value" $value) }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" .value }}
{{- range $index, $value := .value }}
{{- include "understudy.checkSecrets" (dict "path" (printf "%s[%d]" $path $index) "value" $value) }}
{{- end }}
{{- end }}
{{- end }}
