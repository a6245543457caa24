package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// hidden stands for what is never shown.
const hidden = "***"

var reference = regexp.MustCompile(`\$\{(?:file:([^{}]*)|([A-Za-z_][A-Za-z0-9_]*))\}`)

// secretLimit is far above any password, and far below what would be felt.
const secretLimit = 64 << 10

// expand replaces ${NAME} by the environment's value and ${file:/path} by what the
// file contains, so that passwords need not stand in the configuration. A "$"
// without braces stays: passwords contain them.
func expand(s string) (string, error) {
	var problems []string
	s = reference.ReplaceAllStringFunc(s, func(m string) string {
		parts := reference.FindStringSubmatch(m)
		if parts[2] == "" {
			value, err := secretFile(parts[1])
			if err != nil {
				problems = append(problems, err.Error())
			}
			return value
		}
		value, ok := os.LookupEnv(parts[2])
		if !ok {
			problems = append(problems, fmt.Sprintf("environment variable %s is not set", parts[2]))
		}
		return value
	})
	if len(problems) > 0 {
		return "", errors.New(strings.Join(problems, "; "))
	}
	return s, nil
}

// secretFile reads a secret as orchestrators mount them; a newline at its end is no
// part of it.
func secretFile(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("${file:%s}: write the whole path, from /", name)
	}
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("${file:%s}: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, secretLimit+1))
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case err != nil:
		return "", fmt.Errorf("${file:%s}: %w", name, err)
	case len(data) > secretLimit:
		return "", fmt.Errorf("${file:%s}: is larger than %d bytes: a secret is meant", name, secretLimit)
	case text == "":
		return "", fmt.Errorf("${file:%s}: the file is empty", name)
	}
	return text, nil
}

var (
	// A password may contain "@" and "/": up to the last "@" of the word.
	userinfo = regexp.MustCompile(`(://[^\s:/?#@]*):\S*@`)
	// In the query of a URL, or in the form host=… password=… of a Postgres URL.
	parameter = regexp.MustCompile(`(?i)\b((?:[a-z]*_?)(?:password|token|secret)\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

// withoutPasswords hides the passwords of URLs in any text, such as a library's
// error.
func withoutPasswords(text string) string {
	text = userinfo.ReplaceAllStringFunc(text, func(m string) string {
		if m == "://user:password@" {
			return m // our own examples
		}
		return userinfo.ReplaceAllString(m, "${1}:"+hidden+"@")
	})
	return parameter.ReplaceAllString(text, "${1}"+hidden)
}

// shownURL is a URL as it may be shown. One that cannot be read is not.
func shownURL(text string) string {
	if _, err := url.Parse(text); err != nil && !strings.Contains(text, "=") {
		return hidden
	}
	return withoutPasswords(text)
}

// withoutSecrets is for slog: a library's error may quote the URL that it was given.
func withoutSecrets(_ []string, a slog.Attr) slog.Attr {
	text := a.Value.String() // an error's too, and a *url.URL's
	if clean := withoutPasswords(text); clean != text {
		a.Value = slog.StringValue(clean)
	}
	return a
}
