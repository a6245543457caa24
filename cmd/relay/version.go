package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildInfo says which source this binary was built from, by what.
type buildInfo struct {
	Version  string `json:"version"`            // a release, or one made up of time and commit
	Commit   string `json:"commit,omitempty"`   // where it was built in a checkout
	Time     string `json:"time,omitempty"`     // of the commit
	Modified bool   `json:"modified,omitempty"` // by what was not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b buildInfo) text() string {
	text := "relay " + b.Version
	if b.Commit != "" {
		text += "\ncommit " + b.Commit + " of " + b.Time
	}
	if b.Modified {
		text += ", with changes that are not committed"
	}
	return text + "\n" + b.Go + " " + b.Platform
}

func newVersion() *cobra.Command {
	var out form
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  relay version
  relay version --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuildInfo()
			return out.print(cmd, b, b.text())
		},
	}
	out.flag(cmd)
	return cmd
}
