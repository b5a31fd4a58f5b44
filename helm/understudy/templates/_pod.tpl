{{/* What the pods of servers, workers and migrations have in common. */}}

{{/* A pod's fields around its containers. `root` and `component`. */}}
{{- define "understudy.podFields" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Where the pods go. `root`, `component` and `values`, which are those of the server or the worker. */}}
{{- define "understudy.scheduling" -}}
{{- with .values.nodeSelector | default .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity | default .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $selector := dict "matchLabels" (merge (dict "app.kubernetes.io/component" .component) (include "understudy.selector" .root | fromYaml)) }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpreadConstraints }}
  {{- toYaml (list (merge (dict "labelSelector" $selector) .)) | nindent 2 }}
  {{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      {{- toYaml $selector | nindent 6 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* A container's fields but its name, arguments, ports and probes. `root` and `component`. */}}
{{- define "understudy.containerFields" -}}
image: {{ include "understudy.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
env:
  - name: UNDERSTUDY_CONFIG
    value: /etc/understudy/config/understudy.yaml
  - name: UNDERSTUDY_DATA_DIR
    value: /var/lib/understudy
  - name: HOME
    value: /tmp
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  {{- if and (include "understudy.trustedCA" .root) .root.Values.trustedCA.asDefault }}
  {{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" }}
  - name: {{ . }}
    value: /etc/understudy/ca/ca-bundle.crt
  {{- end }}
  {{- end }}
  {{- include "understudy.otel" . | trim | nindent 2 }}
  {{- range $name, $source := .root.Values.secretEnv }}
  - name: {{ $name }}
    valueFrom: {secretKeyRef: {name: {{ $source.existingSecret }}, key: {{ $source.key }}}}
  {{- end }}
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .root.Values.existingSecret .root.Values.extraEnvFrom }}
envFrom:
  {{- with .root.Values.existingSecret }}
  - secretRef: {name: {{ . }}}
  {{- end }}
  {{- with .root.Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/understudy/config, readOnly: true}
  - {name: data, mountPath: /var/lib/understudy}
  - {name: tmp, mountPath: /tmp}
  {{- if include "understudy.trustedCA" .root }}
  - {name: trusted-ca, mountPath: /etc/understudy/ca, readOnly: true}
  {{- end }}
  {{- if .root.Values.trustedCA.serviceCA }}
  - {name: service-ca, mountPath: /etc/understudy/service-ca, readOnly: true}
  {{- end }}
  {{- if eq (include "understudy.mountsToken" .) "true" }}
  - {name: service-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
  {{- range $name, $_ := .root.Values.secretFiles }}
  - {name: secret-{{ $name }}, mountPath: /etc/understudy/secrets/{{ $name }}, readOnly: true}
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* In migrations too, though they don't use it: settings may name the file, and it has to be there. */}}
{{- define "understudy.mountsToken" -}}
{{- if or .root.Values.serviceAccount.token.mount (include "understudy.kserve" .root) (include "understudy.tokenReview" .root) }}true{{ end }}
{{- end }}

{{- define "understudy.otel" -}}
{{- with .root.Values.otel }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
- name: OTEL_METRICS_EXPORTER
  value: {{ .metricsExporter }}
{{- with .sampler }}
- name: OTEL_TRACES_SAMPLER
  value: {{ . | quote }}
{{- end }}
{{- with .samplerArg }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | toString | quote }}
{{- end }}
{{- with .existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: headers}}
{{- end }}
{{- end }}
{{- $resource := list "k8s.namespace.name=$(POD_NAMESPACE)" "k8s.pod.name=$(POD_NAME)" "k8s.container.name=understudy" }}
{{- range $key, $value := .resourceAttributes }}
{{- $resource = append $resource (printf "%s=%v" $key $value) }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $resource | quote }}
{{- end }}
{{- end }}

{{/* `root` and `component`; a migration has a ConfigMap and a bundle of its own, which are there before the rest. */}}
{{- define "understudy.volumes" -}}
{{- $name := include "understudy.fullname" .root }}
{{- $hooked := and (eq .component "migration") (include "understudy.migrationHooked" .root) }}
{{- $prefix := ternary (printf "%s-migration" $name) $name (not (empty $hooked)) }}
- name: config
  configMap: {name: {{ $prefix }}}
- name: data
  {{- if and (eq .component "server") (include "understudy.embedded" .root) .root.Values.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .root.Values.persistence.existingClaim | default $name }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .root.Values.ephemeral.dataSizeLimit }}}
  {{- end }}
- name: tmp
  emptyDir: {sizeLimit: {{ .root.Values.ephemeral.tmpSizeLimit }}}
{{- with .root.Values.trustedCA }}
{{- if .existingSecret }}
- name: trusted-ca
  secret: {secretName: {{ .existingSecret }}, items: [{key: {{ .key }}, path: ca-bundle.crt}]}
{{- else if or .inject .existingConfigMap }}
- name: trusted-ca
  configMap: {name: {{ .existingConfigMap | default (printf "%s-trusted-ca" $prefix) }}, items: [{key: {{ .key }}, path: ca-bundle.crt}]}
{{- end }}
{{- if .serviceCA }}
- name: service-ca
  configMap: {name: {{ $prefix }}-service-ca, items: [{key: service-ca.crt, path: service-ca.crt}]}
{{- end }}
{{- end }}
{{- if eq (include "understudy.mountsToken" .) "true" }}
- name: service-account
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: {{ int .root.Values.serviceAccount.token.expirationSeconds }}
          {{- with .root.Values.serviceAccount.token.audience }}
          audience: {{ . }}
          {{- end }}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      # OpenShift's CA of serving certificates, where there is one.
      - configMap: {name: openshift-service-ca.crt, items: [{key: service-ca.crt, path: service-ca.crt}], optional: true}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- range $one, $source := .root.Values.secretFiles }}
- name: secret-{{ $one }}
  secret:
    secretName: {{ $source.existingSecret }}
    {{- with $source.items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of the pods of the servers or the workers: `root` and `own`. */}}
{{- define "understudy.podAnnotations" -}}
{{- if .root.Values.restartOnConfigChange }}
checksum/config: {{ include "understudy.config" .root | sha256sum }}
{{- end }}
{{- if .root.Values.mesh.enabled }}
{{- /* The proxy outlives the requests: by default it ends five seconds after the pod's deletion. */}}
proxy.istio.io/config: {{ dict "holdApplicationUntilProxyStarts" true "terminationDrainDuration" (printf "%ds" (include "understudy.drain" .root | int)) "proxyMetadata" (dict "EXIT_ON_ZERO_ACTIVE_CONNECTIONS" "true" "MINIMUM_DRAIN_DURATION" (printf "%ds" (include "understudy.unready" .root | int))) | toJson | squote }}
{{- end }}
{{- with merge (dict) (.own | default dict) .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "understudy.podLabels" -}}
{{- include "understudy.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- if .root.Values.mesh.enabled }}
sidecar.istio.io/inject: "true"
{{- end }}
{{- with merge (dict) (.own | default dict) .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* One probe: `root`, `path` and `values`. */}}
{{- define "understudy.probe" -}}
httpGet: {path: {{ .path }}, port: {{ include "understudy.probePort" .root }}}
{{ toYaml .values }}
{{- end }}
