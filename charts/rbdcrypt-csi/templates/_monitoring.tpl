{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Endpoints of a PodMonitor or ServiceMonitor.  Takes (list root monitor ports), where
     `ports` are names of container or service ports. */}}
{{- define "rbdcrypt.scrapes" -}}
{{- $monitor := index . 1 -}}
{{- range index . 2 }}
- port: {{ . }}
  path: /metrics
  {{- with $monitor.interval }}
  interval: {{ . }}
  {{- end }}
  relabelings:
    - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
      targetLabel: component
    - sourceLabels: [__meta_kubernetes_pod_node_name]
      targetLabel: node
{{- end }}
{{- end -}}

{{/* Names of all ports with metrics, one a line. */}}
{{- define "rbdcrypt.metricsPorts" -}}
http
{{- if .Values.sidecars.metrics }}
provisioner
attacher
resizer
{{- if .Values.sidecars.snapshotter.enabled }}
snapshotter
{{- end }}
{{- end }}
{{- end -}}
