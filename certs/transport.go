package certs

import "net/http"

// Transport returns one that sends each HTTP request over a connection of its own,
// with the certificates as they are then, also through a proxy. It may be used from
// any goroutine.
func (f Files) Transport() http.RoundTripper { return transport{f} }

type transport struct{ files Files }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	conf, err := t.files.Config(r.URL.Hostname())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as every RoundTripper does, also when it fails
		}
		return nil, err
	}
	tr := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
	tr.TLSClientConfig, tr.DisableKeepAlives = conf, true
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return nil, Explain(err)
	}
	return resp, nil
}
