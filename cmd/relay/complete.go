package main

import (
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// firstArg completes the first argument.
func firstArg(list func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return list(), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes the value of a flag.
func completeFlag(cmd *cobra.Command, flag string, list func() []string) {
	// It fails only where there is no such flag, which TestEveryCommand would see.
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return list(), cobra.ShellCompDirectiveNoFileComp
	})
}

func choices(list ...string) func() []string { return func() []string { return list } }

// pipelines names what the configuration has; nothing if it cannot be read.
func (p *place) pipelines() []string {
	c, _, _ := readConfig(p.path)
	lists := [][]pipelineConfig{c.Pipelines}
	if p.database != "" {
		lists = nil
	}
	for _, d := range c.Databases {
		if p.database != "" && p.database != databaseName(d.Name, d.URL) {
			continue
		}
		if len(d.Pipelines) == 0 {
			d.Pipelines = c.Pipelines
		}
		lists = append(lists, d.Pipelines)
	}
	var names []string
	for _, one := range slices.Concat(lists...) {
		names = append(names, one.Name)
	}
	return distinct(names)
}

func (p *place) databases() []string {
	c, _, _ := readConfig(p.path)
	var names []string
	for _, d := range c.Databases {
		names = append(names, databaseName(d.Name, d.URL))
	}
	return distinct(names)
}

func (p *place) inboxes() []string {
	c, _, _ := readConfig(p.path)
	var names []string
	for _, d := range c.Inboxes {
		names = append(names, databaseName(d.Name, d.URL))
	}
	return distinct(names)
}

// databaseName guesses without the secrets that the URL may need.
func databaseName(name, from string) string {
	if u, err := url.Parse(from); name == "" && err == nil {
		return strings.TrimPrefix(u.Path, "/")
	}
	return name
}

func distinct(names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}
