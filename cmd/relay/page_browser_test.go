package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// startChromium returns the context of a browser, for [openTab].
func startChromium(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(svctest.Chromium(t)), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(awaited)) // it starts slowly beside other tests
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		closeBrowser()
		stop()
	})
	require.NoError(t, chromedp.Run(ctx)) // starts it
	return ctx
}

// tab is a page in a real browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // errors and violations that the browser reports
	asked    []string // every URL
}

const (
	awaited   = time.Minute // a broker that is away is called so after ten seconds
	polled    = 50 * time.Millisecond
	tabLasts  = 5 * time.Minute
	mostStops = 200
)

func openTab(t *testing.T, browser context.Context, url string) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	ctx, cancel := context.WithTimeout(ctx, tabLasts)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.heard)
	// Focused, whichever tab the browser thinks is in front: a hidden page does not poll.
	require.NoError(t, chromedp.Run(ctx, network.Enable(), emulation.SetFocusEmulationEnabled(true), chromedp.Navigate(url)))
	b.until(`document.querySelector("#age")?.textContent.startsWith("as of")`)
	return b
}

func (b *tab) heard(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, ev.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		b.problems = append(b.problems, fmt.Sprintf("console.%s", ev.Type))
	case *cdplog.EventEntryAdded: // among them violations of the policy
		if ev.Entry.Level == cdplog.LevelError || ev.Entry.Level == cdplog.LevelWarning {
			b.problems = append(b.problems, fmt.Sprintf("%s: %s (%s)", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, ev.Request.URL)
	}
}

// requireClean: nothing went wrong, and nobody but the relay was asked.
func (b *tab) requireClean(url string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.problems)
	require.NotEmpty(b.t, b.asked)
	for _, asked := range b.asked {
		require.True(b.t, strings.HasPrefix(asked, url), asked)
	}
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Run(b.ctx, actions...))
}

// eval returns the value of an expression.
func eval[T any](b *tab, expression string) (v T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &v))
	return v
}

// do runs statements without a value.
func (b *tab) do(statements string) {
	b.t.Helper()
	require.True(b.t, eval[bool](b, "(() => {"+statements+"; return true})()"))
}

// until waits for a condition.
func (b *tab) until(condition string) {
	b.t.Helper()
	deadline := time.Now().Add(awaited)
	for !eval[bool](b, "Boolean("+condition+")") {
		if time.Now().After(deadline) {
			b.t.Fatalf("never true: %s\n%s", condition, eval[string](b, "document.body.innerText"))
		}
		<-time.After(polled)
	}
}

func (b *tab) press(key string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(key))
}

// tabTo goes on by the keyboard alone until a selector has the focus. Each stop must be
// visible and must show that it has the focus.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range mostStops {
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
		b.press("\t")
		lost := eval[string](b, `(() => {
			const e = document.activeElement;
			if (e === document.body) return "";
			const s = getComputedStyle(e), r = e.getBoundingClientRect();
			const shown = r.width > 0 && r.height > 0 && r.right > 0 && r.left < innerWidth && r.bottom > 0 && r.top < innerHeight;
			return shown && s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 ? "" : e.outerHTML.slice(0, 200);
		})()`)
		require.Empty(b.t, lost, "the focus is not seen")
	}
	b.t.Fatalf("%s is not reached by the keyboard", selector)
}

func scheme(name string) chromedp.Action {
	return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}})
}

// figures is the folder where docs' figures are to be written, "" if none are.
func figures() string { return os.Getenv("OUTBOXKIT_SCREENSHOTS") }

// figureConfig is writeConfig where the file's name is seen in figures.
func figureConfig(t *testing.T, text string) string {
	t.Helper()
	if figures() == "" {
		return writeConfig(t, text)
	}
	folder := filepath.Join(os.TempDir(), "shop")
	require.NoError(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	path := filepath.Join(folder, "relay.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// screenshot writes one of them.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	folder := figures()
	if folder == "" {
		return
	}
	var png []byte
	b.run(chromedp.CaptureScreenshot(&png))
	require.NoError(b.t, os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644)) //nolint:gosec // a figure
}
