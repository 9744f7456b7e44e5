// Definitions of resources that the chart uses where they are installed; only their YAML files are read.
module fairlead/conformance/crds

go 1.26.0

require (
	github.com/kubernetes-csi/external-snapshotter/client/v8 v8.6.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
