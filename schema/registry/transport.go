package registry

import (
	"errors"
	"io"
	"net/http"
)

// maxResponse bounds what is read of a response, decompressed: a schema of the
// largest size that schema/avro takes, written as a JSON string.
const maxResponse = 2 << 20

var errTooLarge = errors.New("the registry's response is larger than 2 MiB")

// bounded refuses responses above maxResponse: the client library reads them
// whole.
type bounded struct{ base http.RoundTripper }

func (t bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > maxResponse {
		_ = resp.Body.Close()
		return nil, errTooLarge
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxResponse}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// At the limit: it may also be the end.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// httpClient builds the client of a valid configuration.
func httpClient(cfg Config) *http.Client {
	client := &http.Client{}
	if cfg.HTTPClient != nil {
		*client = *cfg.HTTPClient
	}
	base := client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	if cfg.TLS != nil {
		tr := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
		tr.TLSClientConfig = cfg.TLS.Clone()
		base = tr
	}
	if cfg.TLSFiles != nil {
		base = cfg.TLSFiles.Transport()
	}
	client.Transport = bounded{base}
	client.Timeout = cfg.Timeout
	return client
}
