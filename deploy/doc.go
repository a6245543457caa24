// Package deploy holds what outboxkit is deployed with, and nothing but tests of that:
// the manifests are read with Kubernetes' own types, the compose file with Compose's
// own loader, the unit by systemd. It is a module of its own, so that nobody who uses
// outboxkit has those in their go.sum.
//
// cmd/relay tests that the configurations in it are good and that every platform
// grants the time to drain; internal/cmd/release that the image's content runs.
package deploy
