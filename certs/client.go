package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// Client begins TLS on a connection to addr, host:port, with the files as they are
// now. It ends with ctx. The connection stays the caller's to close when it fails;
// errors are those of [Explain].
func (f Files) Client(ctx context.Context, conn net.Conn, addr string) (*tls.Conn, error) {
	cfg, err := f.Config(addr)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, Explain(fmt.Errorf("TLS with %s: %w", addr, err))
	}
	return secure, nil
}

// Explain adds to an error of a TLS handshake what can be done about it; others it
// returns as they are.
func Explain(err error) error {
	if hint := hint(err); hint != "" {
		return fmt.Errorf("%w (%s)", err, hint)
	}
	return err
}

func hint(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		noTLS    tls.RecordHeaderError
		alert    *net.OpError
		fileGone *FileError
	)
	switch {
	case errors.As(err, &fileGone):
		return ""
	case errors.As(err, &unknown):
		return "wrong authority: the CA file must hold the one that signed the server's certificate"
	case errors.As(err, &name):
		return "wrong host: connect by a name that the certificate has, or set the server name to one"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired: renew the server's certificate, or mend this machine's clock"
	case errors.As(err, &noTLS):
		return "the server does not speak TLS on this port"
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls has no type for it
		return "the server refused: does it trust the certificate that is shown to it, if one is?"
	}
	return ""
}
