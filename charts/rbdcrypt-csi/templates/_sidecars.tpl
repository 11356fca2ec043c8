{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* The sidecars beside the controller. */}}

{{/* One sidecar. Takes (list root name values port arguments), where `arguments` are
     those that it does not share with the others. */}}
{{- define "rbdcrypt.sidecar" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $values := index . 2 -}}
{{- $port := index . 3 -}}
- name: csi-{{ $name }}
  {{- include "rbdcrypt.image" (list $root $values.image) | nindent 2 }}
  args:
    - --v={{ $root.Values.sidecars.logLevel }}
    - --csi-address=/csi/csi.sock
    - --timeout={{ $root.Values.sidecars.timeout }}
    - --kube-api-qps={{ $root.Values.sidecars.kubeApi.qps }}
    - --kube-api-burst={{ $root.Values.sidecars.kubeApi.burst }}
    - --leader-election
    - --leader-election-namespace=$(NAMESPACE)
    {{- if $root.Values.sidecars.metrics }}
    - --http-endpoint=:{{ $port }}
    {{- end }}
    {{- range index . 4 }}
    - {{ . }}
    {{- end }}
    {{- with $values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
  {{- if $root.Values.sidecars.metrics }}
  ports:
    - name: {{ $name }}
      containerPort: {{ $port }}
  livenessProbe:
    httpGet:
      path: /healthz/leader-election
      port: {{ $port }}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 3
  {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "rbdcrypt.unprivileged" . | nindent 4 }}
  volumeMounts:
    - name: socket
      mountPath: /csi
{{- end -}}
