package page

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func asset(t *testing.T, name string) string {
	t.Helper()
	data, err := fs.ReadFile(embedded, "assets/"+name)
	require.NoError(t, err)
	return string(data)
}

func scripts(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(embedded, "assets/*.js")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for i := range names {
		names[i] = path.Base(names[i])
	}
	return names
}

// The page needs no network but its relay: what it refers to is embedded.
func TestNothingComesFromElsewhere(t *testing.T) {
	t.Parallel()
	p := newTestPage(t)
	html := asset(t, "index.html")
	links := regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"`).FindAllStringSubmatch(html, -1)
	require.NotEmpty(t, links)
	for _, m := range links {
		require.True(t, strings.HasPrefix(m[1], "assets/"), m[1])
		require.Equal(t, 200, get(t, p, "/"+m[1]).Code, m[1])
	}
	for _, inline := range []string{"<style", " style=", "javascript:", "<base"} {
		require.NotContains(t, html, inline)
	}
	require.NotRegexp(t, `\son\w+=`, html)
	require.NotRegexp(t, `url\(|@import`, asset(t, "page.css"))
	for _, name := range scripts(t) {
		text := strings.ReplaceAll(asset(t, name), `"http://www.w3.org/2000/svg"`, "")
		require.NotRegexp(t, `https?:|\bimport\(|WebSocket|EventSource|sendBeacon`, text, name)
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|setAttribute\("style`, text, name)
	}
}

// The scripts name what is there: nothing compiles them.
func TestScriptsFitThePage(t *testing.T) {
	t.Parallel()
	html := asset(t, "index.html")
	ids := map[string]int{}
	for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		ids[m[1]]++
		require.Equal(t, 1, ids[m[1]], m[1])
	}
	for _, m := range regexp.MustCompile(`(?:for|aria-labelledby)="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		require.Contains(t, ids, m[1])
	}
	for _, name := range scripts(t) {
		text := asset(t, name)
		for _, m := range regexp.MustCompile(`byId\("([^"]+)"\)`).FindAllStringSubmatch(text, -1) {
			require.Contains(t, ids, m[1], name)
		}
		for _, m := range regexp.MustCompile(`import \{([^}]+)\} from "\./([^"]+)"`).FindAllStringSubmatch(text, -1) {
			for _, imported := range strings.Split(m[1], ",") {
				exported := regexp.MustCompile(`export (?:async )?(?:function|const) ` + strings.TrimSpace(imported) + `\b`)
				require.Regexp(t, exported, asset(t, m[2]), "%s imports it", name)
			}
		}
	}
}

// Text has a contrast of 4.5 and what else tells something of 3, in light and dark
// (WCAG 2.2 AA, 1.4.3 and 1.4.11).
func TestContrast(t *testing.T) {
	t.Parallel()
	css := asset(t, "page.css")
	parts := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(css, -1)
	require.Len(t, parts, 2)
	light := colours(parts[0][1])
	dark := colours(parts[1][1])
	require.Equal(t, len(light), len(dark), "each colour has a dark one")
	for theme, c := range map[string]map[string]string{"light": light, "dark": dark} {
		for pair, least := range map[[2]string]float64{
			{"text", "ground"}: 7, {"text", "raised"}: 7, {"quiet", "ground"}: 4.5, {"quiet", "raised"}: 4.5,
			{"link", "ground"}: 4.5, {"good", "good-ground"}: 4.5, {"warn", "warn-ground"}: 4.5, {"bad", "bad-ground"}: 4.5,
			{"control", "ground"}: 3, {"control", "raised"}: 3, {"plot", "raised"}: 3, {"plot", "warn-ground"}: 3, {"plot", "bad-ground"}: 3,
			{"bad", "ground"}: 3, {"warn", "ground"}: 3, {"link", "warn-ground"}: 3, {"link", "bad-ground"}: 3,
			{"quiet", "warn-ground"}: 4.5, {"quiet", "bad-ground"}: 4.5,
		} {
			require.GreaterOrEqual(t, contrast(t, c[pair[0]], c[pair[1]]), least, fmt.Sprint(theme, pair))
		}
	}
	// The formula itself, by the two ends and a well-known grey.
	require.InDelta(t, 21, contrast(t, "#000000", "#ffffff"), 0.01)
	require.InDelta(t, 4.54, contrast(t, "#767676", "#ffffff"), 0.01)
}

func colours(block string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(block, -1) {
		found[m[1]] = m[2]
	}
	return found
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	require.Len(t, colour, 7)
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		require.NoError(t, err)
		v := float64(n) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}
