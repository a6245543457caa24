package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// pageWorld is a live relay with two pipelines, of which the broker of one is away,
// ten thousand dead letters and a consumer's inbox.
type pageWorld struct {
	conn *pgx.Conn
	url  string
	kill func() // the relay
}

func startPageWorld(t *testing.T) pageWorld {
	t.Helper()
	url, conn := outboxAs(t)
	inboxURL, _ := consumerDatabase(t)
	broker := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders")).ListenAddrs()[0]
	path := figureConfig(t, fmt.Sprintf(`lease: 6s
instance: shop-relay
drain_timeout: 1s
admin: {listen: '127.0.0.1:0'}
database: {url: %q}
inboxes:
  - {name: stock, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: [%q]}
  - name: away
    kafka: {brokers: ['127.0.0.1:1']}
`, url, inboxURL, broker))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	require.Eventually(t, func() bool {
		var n int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox.lease WHERE owner <> ''`).Scan(&n)
		return err == nil && n == 128
	}, awaited, polled, log.String())
	deadLetters(t, conn)
	return pageWorld{conn, listeners(log.String())["admin.listen"], kill}
}

// deadLetters are 10,000 of pipeline kafka. What the first one says is markup, and
// turns the text around.
func deadLetters(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	data, err := avro.MustParse(itemSchema).Encode(map[string]any{"sku": "x", "price": price("12.50")})
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (1, 'avro', $1, 'application/avro')`, itemSchema)
	require.NoError(t, err)
	const insert = `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, schema_fp, state, blocks, class, reason, attempts) `
	hostile := `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>` + "\u202e"
	_, err = conn.Exec(t.Context(), insert+`VALUES ('kafka', outbox.uuid_v7(), $1, 'orders', $1, $1, $1, now(), convert_to($1, 'UTF8'), NULL, 'dead', true, 'rejected', $1, 3)`, hostile)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), insert+`SELECT 'kafka', outbox.uuid_v7(), 'orders', 'orders', 'order-' || g, 'shop.order.placed', '/shop', now(), $1, 1, 'dead', true, 'rejected',
		'the message is larger than the broker accepts', 1 FROM generate_series(2, 10000) g`, data)
	require.NoError(t, err)
}

func (w pageWorld) write(t *testing.T, events int) {
	t.Helper()
	_, err := w.conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
		SELECT 'orders', 'live-' || g, 'shop.order.placed', '/shop', '{}' FROM generate_series(1, $1::int) g`, events)
	require.NoError(t, err)
}

// TestPageInABrowser shows a live relay in a real Chromium.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	browser := startChromium(t)
	w := startPageWorld(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, pageWorld, *tab)
	}{
		{"live", testPageIsLive},
		{"keyboard", testPageByKeyboard},
		{"markup", testPageShowsMarkupAsText},
		{"story", testPageTellsAStory},
		{"names", testPageHasNames},
		{"phone", testPageOnAPhone},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := openTab(t, browser, w.url)
			b.until(pipelineText("kafka") + `.includes("64 of 64 shards") && ` + pipelineText("away") + `.includes("64 of 64 shards")`)
			c.test(t, w, b)
			b.requireClean(w.url)
		})
	}
	t.Run("link", func(t *testing.T) {
		b := openTab(t, browser, w.url+"/#event=id3")
		b.until(`document.querySelector("#story").innerText.includes("In inbox stock, inventory: dead, 5 attempts")`)
		b.requireClean(w.url)
	})
	t.Run("relay gone", func(t *testing.T) { testPageOfARelayThatIsGone(t, browser, w) })
}

func pipelineText(name string) string {
	return fmt.Sprintf(`(document.querySelector('article[aria-label="pipeline %s"]')?.innerText ?? "")`, name) // not there before it is registered
}

// What happens is seen without a reload.
func testPageIsLive(t *testing.T, w pageWorld, b *tab) {
	b.until(pipelineText("away") + `.includes("0 unsent")`)
	b.until(pipelineText("kafka") + `.includes("10,000 dead")`)
	b.do(`window.sameDocument = 1`)
	w.write(t, 3)
	b.until(pipelineText("away") + `.includes("3 unsent")`)
	w.write(t, 4)
	b.until(pipelineText("away") + `.includes("7 unsent")`)
	b.until(`document.querySelector("#todo").innerText.includes("away: The broker does not answer")`)
	b.until(`["open", "half-open"].includes(document.querySelector('article[aria-label="pipeline away"] .stage.bad strong')?.textContent)`)
	b.until(pipelineText("kafka") + `.includes("0 unsent")`)
	require.Equal(t, "✖ relay", eval[string](b, "document.title"))
	b.until(`document.querySelector("#announce").textContent.includes("The broker does not answer")`) // said aloud
	b.until(`/Backlog: now [\d,]+, at most/.test(document.querySelector('article[aria-label="pipeline away"] svg').getAttribute("aria-label"))`)
	require.Equal(t, 1.0, eval[float64](b, "window.sameDocument"))
	if figures() != "" {
		w.makeHistory(t, b)
	}
	b.run(chromedp.EmulateViewport(1280, 1400))
	b.screenshot("page")
	b.run(scheme("dark"))
	b.screenshot("page-dark")
}

// makeHistory writes for two minutes, for lines in the figures.
func (w pageWorld) makeHistory(t *testing.T, b *tab) {
	t.Helper()
	for points := 2; points < 13; points++ {
		w.write(t, 20*(points*points%7)+10)
		b.until(fmt.Sprintf(`document.querySelector('article[aria-label="pipeline kafka"] path').getAttribute("d").split("L").length > %d`, points))
	}
}

// Ten thousand dead letters are paged through, and one is read, without a mouse; the
// page stays small.
func testPageByKeyboard(t *testing.T, _ pageWorld, b *tab) {
	b.until(`document.querySelectorAll("#letters tr").length === 50`)
	const asideOfKafka = `article[aria-label="pipeline kafka"] button`
	b.until(fmt.Sprintf(`!document.querySelector(%q).hidden`, asideOfKafka))
	b.tabTo(asideOfKafka)
	const answers = `performance.getEntriesByType("resource").filter((e) => e.name.includes("/api/status")).length`
	b.until(fmt.Sprintf("%s > %d", answers, 2+eval[int](b, answers)))
	require.True(t, eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", asideOfKafka)), "what is new takes the focus from nobody")
	b.tabTo("#next")
	for page := 2; page <= 5; page++ {
		b.press("\r")
		b.until(fmt.Sprintf(`document.querySelector("#page-number").textContent === "Page %d" && document.querySelector("#letters button").textContent === "%d"`, page, 50*(page-1)+1))
		require.Equal(t, 50, eval[int](b, `document.querySelectorAll("#letters tr").length`))
		require.True(t, eval[bool](b, `document.activeElement.id === "next"`), "the focus stays")
	}
	require.Less(t, eval[int](b, `document.querySelectorAll("*").length`), 2000)

	b.do(`document.querySelector("#letters button").focus()`)
	b.press("\r")
	b.until(`document.querySelector("#letter-payload").textContent.includes('"price": 12.5')`)
	require.Equal(t, "letter-title", eval[string](b, "document.activeElement.id"))
	text := eval[string](b, `document.querySelector("#letter").innerText`)
	require.Contains(t, text, "order-201")
	require.Contains(t, text, "relay dlq redrive --n 201 --reason WHY --config /")
	b.screenshot("page-letter")
	b.do(`navigator.clipboard.writeText = async (text) => { window.copied = text }`) // the real one may ask somebody
	b.tabTo("#letter-commands button")
	b.press("\r")
	b.until(`document.activeElement.textContent === "Copied" && window.copied === document.querySelector("#letter-commands code").textContent`)
	b.press("\u001b")
	b.until(`document.querySelector("#letter").hidden`)
	require.Equal(t, "201", eval[string](b, "document.activeElement.textContent"), "back to where the reader was")

	b.do(`document.querySelector("#store").value = "inbox stock"; document.querySelector("#store").dispatchEvent(new Event("change"))`)
	b.until(`document.querySelectorAll("#letters tr").length === 6`)
	b.do(`document.querySelector("#ask [name=id]").focus()`)
	b.run(chromedp.KeyEvent("id0"))
	b.press("\r")
	b.until(`document.querySelector("#story").innerText.includes("In inbox stock, inventory: dead, 5 attempts")`)
}

// What events say is text, whatever it looks like.
func testPageShowsMarkupAsText(t *testing.T, _ pageWorld, b *tab) {
	b.until(`document.querySelectorAll("#letters tr").length === 50`)
	b.do(`document.querySelector("#letters button").click()`)
	b.until(`document.querySelector("#letter-payload").textContent.includes("<script>window.pwned=1")`)
	require.Equal(t, "undefined", eval[string](b, "typeof window.pwned"))
	require.Equal(t, 0, eval[int](b, `document.querySelectorAll("main img, main script").length`))
	require.False(t, eval[bool](b, `/[\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)`))
	b.do(`import("./assets/dom.js").then((dom) => {
		const made = dom.el("p", { text: "a\u202eb" }), changed = dom.el("p");
		dom.set(changed, "c\u202e\u0007d\ne");
		window.plain = [made.textContent, changed.textContent];
	})`)
	b.until("window.plain")
	require.Equal(t, []string{"a·b", "c··d\ne"}, eval[[]string](b, "window.plain"), "and without the relay's help")
}

// One event's story says where it is in each pipeline, and why it still waits in one.
func testPageTellsAStory(t *testing.T, w pageWorld, b *tab) {
	id := writeEvent(t, w.conn, "orders", "waits")
	b.until(`document.querySelector("#todo").innerText.includes("away: The broker does not answer")`)
	b.do(fmt.Sprintf(`document.querySelector("#ask [name=id]").value = %q`, id))
	var text string
	for began := time.Now(); !strings.Contains(text, `PUBLISHED to topic "orders" of Kafka`); <-time.After(polled) {
		require.Less(t, time.Since(began), awaited, text)
		b.do(`document.querySelector("#ask").requestSubmit()`)
		b.until(`document.querySelector("#story pre")`)
		text = eval[string](b, `document.querySelector("#story pre").textContent`)
	}
	for _, want := range []string{
		"event " + id, `placed of /shop, topic "orders", key "waits"`, "committed; written at",
		`WAITING on its way to topic "orders" of Kafka 127.0.0.1:1`, "the circuit of the broker is ", "→ see what the broker does",
	} {
		require.Contains(t, text, want)
	}
	require.False(t, eval[bool](b, `document.body.textContent.includes("hunter2")`), "payloads are for those who open a letter")
	b.do(`document.querySelector("#story-title").scrollIntoView()`)
	b.screenshot("page-story")
}

// Whoever does not see the page is told what everything is.
func testPageHasNames(t *testing.T, _ pageWorld, b *tab) {
	b.until(`document.querySelectorAll("#letters tr").length === 50`)
	b.do(`document.querySelector("#letters button").click()`)
	nameless := eval[[]string](b, `[...document.querySelectorAll("button, input, select, a, svg, pre, section, article, [role=region], [role=img]")].filter((e) => {
		const by = e.getAttribute("aria-labelledby");
		const name = e.getAttribute("aria-label") || (by && document.getElementById(by)?.textContent) || e.labels?.[0]?.textContent || (e.matches("button, a") && e.textContent);
		return !name?.trim();
	}).map((e) => e.outerHTML.slice(0, 100))`)
	require.Empty(t, nameless)
	require.Equal(t, "en", eval[string](b, "document.documentElement.lang"))
	require.Equal(t, 0, eval[int](b, `[...document.querySelectorAll("table")].filter((t) => !t.caption?.textContent || t.querySelector("thead th:not([scope])")).length`))
	levels := eval[[]int](b, `[...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].map((h) => Number(h.tagName[1]))`)
	for i, level := range levels {
		require.LessOrEqual(t, level, 1+append([]int{0}, levels...)[i], "no level of headings is left out: %v", levels)
	}
	require.Equal(t, 0, eval[int](b, `[...document.querySelectorAll("[id]")].filter((e) => document.querySelectorAll("#" + CSS.escape(e.id)).length > 1).length`))
}

// A phone shows all of it without a sideways scroll, in light and dark, with buttons
// that a finger hits.
func testPageOnAPhone(t *testing.T, _ pageWorld, b *tab) {
	b.run(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateScale(2)))
	b.until(`document.querySelectorAll("#letters tr").length === 50`)
	b.do(`document.querySelector("#letters button").click()`)
	b.until(`document.querySelector("#letter-payload").textContent.includes("window.pwned")`)
	for name, ground := range map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"} {
		b.run(scheme(name))
		require.Equal(t, ground, eval[string](b, "getComputedStyle(document.body).backgroundColor"))
		require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), 360)
		require.Empty(t, eval[[]string](b, `[...document.querySelectorAll("button, input, select")].filter((e) => {
			const r = e.getBoundingClientRect();
			return r.width > 0 && (r.height < 24 || r.width < 24);
		}).map((e) => e.outerHTML.slice(0, 100))`))
	}
	b.run(scheme("light"))
	b.do(`window.scrollTo(0, 0)`)
	b.run(chromedp.EmulateViewport(360, 1080, chromedp.EmulateMobile, chromedp.EmulateScale(2)))
	b.screenshot("page-phone")
}

// Who looks at a page of a relay that has gone is told so, and that what is shown is old.
func testPageOfARelayThatIsGone(t *testing.T, browser context.Context, w pageWorld) {
	b := openTab(t, browser, w.url)
	b.until(pipelineText("kafka") + `.includes("64 of 64 shards")`)
	w.kill()
	b.until(`!document.querySelector("#lost").hidden`)
	banner := eval[string](b, `document.querySelector("#lost").textContent`)
	require.True(t, strings.HasSuffix(banner, "the relay does not answer. What is shown is from before."), banner)
	require.True(t, eval[bool](b, pipelineText("kafka")+`.includes("64 of 64 shards")`), "and still there")
}
