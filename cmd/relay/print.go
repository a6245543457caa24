package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

// form is how a command prints its result: for people, or as JSON.
type form struct{ json bool }

func (f *form) flag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, one object a line")
}

// print prints v as JSON if that is asked for, else the text.
func (f *form) print(cmd *cobra.Command, v any, text string) error {
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
