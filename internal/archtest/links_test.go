package archtest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

var (
	fenced   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	codeSpan = regexp.MustCompile("`[^`\n]*`")
	link     = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	linked   = regexp.MustCompile(`!?\[([^\]]*)\]\([^()]*\)`)
)

// TestLinksOfDocumentsLead checks links within the repository: to files, folders and
// headings. Others need a network: of these only the form is checked.
func TestLinksOfDocumentsLead(t *testing.T) {
	links := 0
	for _, file := range documents(t) {
		for _, to := range linksOf(readFile(t, file)) {
			require.NoError(t, follow(file, to), "%s links to %s", file, to)
			links++
		}
	}
	require.Greater(t, links, 50, "the links are found at all")
}

// TestReadmeLeadsToEveryDocument: what nobody finds is not documentation.
func TestReadmeLeadsToEveryDocument(t *testing.T) {
	found := map[string]bool{}
	for _, to := range linksOf(readFile(t, "README.md")) {
		found[to] = true
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := "docs/" + filepath.Base(file)
		require.True(t, found[name], "README.md does not link to %s", name)
	}
}

func TestLinksThatLeadNowhereAreFound(t *testing.T) {
	for _, to := range []string{"docs/no.md", "#no-such-heading", "docs/schemas.md#no", "no/folder", "../outside.md", "http:///x", "docs/architecture.md#", "/docs/schemas.md"} {
		require.Error(t, follow("README.md", to), to)
	}
	for _, to := range []string{"docs/schemas.md", "docs/schemas.md#choosing-a-mode", "docs", "https://example.com/a?b#c", "examples/orm"} {
		require.NoError(t, follow("README.md", to), to)
	}
	require.NoError(t, follow("docs/schemas.md", "../README.md"))
	require.Equal(t, []string{"a.md"}, linksOf("[a](a.md) `[b](b.md)`\n```\n[c](c.md)\n```\n"))
	require.Equal(t, map[string]bool{"1-a-b-1c-d_e": true, "x": true, "x-1": true}, anchors("# 1. A `b` (1c), [d_e](f)!\n## x\n### x\n```sh\n# no\n```\n"))
}

var alert = regexp.MustCompile(`(?ms)^ *- alert: (\w+)$.*?^ *runbook_url: '([^']*)'$`)

// TestRunbookHasEveryAlert: whoever is paged finds the page, by the alert's name and by
// its link.
func TestRunbookHasEveryAlert(t *testing.T) {
	runbook, rules := readFile(t, "docs/runbook.md"), readFile(t, "deploy/observability/rules.yml")
	alerts := alert.FindAllStringSubmatch(rules, -1)
	require.NotEmpty(t, alerts)
	require.Len(t, alerts, strings.Count(rules, "- alert: "), "each has a runbook_url")
	for _, m := range alerts {
		_, rest, found := strings.Cut(runbook, "`"+m[1]+"`")
		require.True(t, found, "docs/runbook.md does not say what to do about %s", m[1])
		_, section, _ := strings.Cut(m[2], "/blob/main/docs/runbook.md#")
		require.True(t, anchors(runbook)[section], "%s: %s leads nowhere", m[1], m[2])
		row, _, _ := strings.Cut(rest, "\n")
		require.Contains(t, row, "(#"+section+")", "%s leads elsewhere than its row in docs/runbook.md", m[1])
	}
}

// linksOf are the targets of a document's links, code left out.
func linksOf(text string) (targets []string) {
	text = codeSpan.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// follow tells why a link in a file leads nowhere. Both paths are of the repository.
func follow(file, to string) error {
	u, err := url.Parse(to)
	switch {
	case err != nil:
		return err
	case u.Scheme == "https" && u.Host != "":
		return nil
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(u.Path, "/"):
		return errors.New("it is neither https:// nor relative")
	}
	target := file
	if u.Path != "" {
		target = path.Join(path.Dir(file), u.Path)
	}
	if strings.HasPrefix(target, "..") {
		return fmt.Errorf("%s is outside of the repository", target)
	}
	info, err := os.Stat(filepath.Join(root, target))
	if err != nil {
		return err
	}
	if !strings.Contains(to, "#") {
		return nil
	}
	if info.IsDir() || !strings.HasSuffix(target, ".md") {
		return fmt.Errorf("%s has no headings", target)
	}
	text, err := os.ReadFile(filepath.Join(root, target))
	if err != nil {
		return err
	}
	if !anchors(string(text))[u.Fragment] {
		return fmt.Errorf("%s has no heading #%s", target, u.Fragment)
	}
	return nil
}

// anchors are the names that GitHub gives to headings.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		name := anchor(linked.ReplaceAllString(m[1], "$1"))
		unique := name
		for n := 1; names[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		names[unique] = true
	}
	return names
}

func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, title)
}
