"""What tests of the charts share: manifests as objects, charts rendered by real Helms, Kubernetes' own schemas."""
