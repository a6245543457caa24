package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// bom is a bill of materials as CycloneDX 1.6 has it; what we leave out is optional
// there. It says what Go has written into the binary.
type bom struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

func newComponent(kind string, m *debug.Module) component {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	return component{Type: kind, Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
}

// bill writes the bill of materials of a binary, the standard library included.
func (r *release) bill(name string, info *debug.BuildInfo) error {
	b := bom{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata:   metadata{Timestamp: r.at.Format(time.RFC3339), Component: newComponent("application", &info.Main)},
		Components: []component{newComponent("library", &debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})},
	}
	for _, m := range info.Deps {
		b.Components = append(b.Components, newComponent("library", m))
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	file := name + ".cdx.json"
	r.files = append(r.files, file)
	return os.WriteFile(filepath.Join(r.out, file), append(text, '\n'), 0o644) //nolint:gosec // for everybody
}
