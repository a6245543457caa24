package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/registry"
)

// noSubject is asked for because any answer will do.
const noSubject = "outboxkit.is.it.there"

func (d *doctor) registry(ctx context.Context, p patient) {
	if p.pipeline.Wire.Format != wireConfluent {
		return
	}
	subject := "pipeline " + p.pipeline.Name
	client, err := registry.New(p.pipeline.Wire.Registry.config())
	if err == nil {
		_, err = client.Versions(ctx, noSubject)
	}
	if err != nil {
		d.add(subject, "registry", relay.VerdictFailure, "see whether it runs, and whether url, user and TLS settings are right; until then only schemas that a running relay knows are published",
			"does not answer: %v", err)
		return
	}
	d.add(subject, "registry", relay.VerdictOK, "", "answers")
	d.httpClock(ctx, p.pipeline.Wire.Registry.TLS.httpClient(), subject, "the registry's", strings.TrimSuffix(p.pipeline.Wire.Registry.URL, "/")+"/subjects/"+noSubject+"/versions")
}

// httpClock reads the clock of a web server from its answer to anything: to a GET,
// because not every server dates its answer to a HEAD. That is cut to the second, and
// servers may renew it once a second only.
func (d *doctor) httpClock(ctx context.Context, client *http.Client, subject, whose, url string) {
	const check = "clock"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		d.add(subject, check, relay.VerdictUnknown, "", "%s could not be asked: its address is not a URL", whose) // the error may repeat a password
		return
	}
	before := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		d.add(subject, check, relay.VerdictUnknown, "", "%s could not be asked: %v", whose, err)
		return
	}
	trip := time.Since(before)
	_ = resp.Body.Close() // its head was enough
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		d.add(subject, check, relay.VerdictUnknown, "compare it by hand", "%s is not known: its answers bear no date", whose)
		return
	}
	d.clock(subject, whose, at.Add(time.Second), before, trip, time.Second)
}
