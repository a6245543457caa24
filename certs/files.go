package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Files says where the certificates for connections to a server are. The zero
// value trusts the system's authorities and shows no certificate. Its methods may
// be called from any goroutine.
type Files struct {
	// CAFile holds the certificates (PEM) of the authorities that may have signed
	// the server's. Default: the system's.
	CAFile string
	// CertFile and KeyFile hold the certificate (PEM, with its chain) and the key
	// that are shown to the server, for mutual TLS. Default: none.
	CertFile, KeyFile string
	// ServerName is what the server's certificate must be for, where that is not
	// the host that is connected to. Default: that host, a name or an IP address.
	ServerName string
}

// FileError says which file cannot be used.
type FileError struct {
	Field string // of Files: CAFile, CertFile or KeyFile
	File  string // its path; "" where it is missing
	Err   error
}

// Error implements error.
func (e *FileError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("certs: Files.%s %v", e.Field, e.Err)
	}
	return fmt.Sprintf("certs: Files.%s %q: %v", e.Field, e.File, e.Err)
}

// Unwrap returns the underlying error.
func (e *FileError) Unwrap() error { return e.Err }

// Validate reads the files once. The error is a [*FileError]. A certificate that has
// expired is not an error here, because it may be renewed before it is needed.
func (f Files) Validate() error {
	_, _, err := f.read()
	return err
}

// Config reads the files and returns the configuration of one connection to addr,
// a host or host:port. The error is a [*FileError], also when the certificate that
// would be shown has expired: servers say so late, and not in so many words.
func (f Files) Config(addr string) (*tls.Config, error) {
	roots, own, err := f.read()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: f.ServerName}
	if cfg.ServerName == "" {
		cfg.ServerName = host(addr)
	}
	if own != nil {
		if end := own.Leaf.NotAfter; time.Now().After(end) {
			return nil, &FileError{"CertFile", f.CertFile, fmt.Errorf("this certificate has expired on %s (put a renewed one in its place)", end.UTC().Format(time.RFC3339))}
		}
		cfg.Certificates = []tls.Certificate{*own}
	}
	return cfg, nil
}

// read returns nil for what is not configured.
func (f Files) read() (roots *x509.CertPool, own *tls.Certificate, err error) {
	if f.CAFile != "" {
		if roots, err = readPool(f.CAFile); err != nil {
			return nil, nil, &FileError{"CAFile", f.CAFile, err}
		}
	}
	switch {
	case f.CertFile == "" && f.KeyFile == "":
		return roots, nil, nil
	case f.CertFile == "":
		return nil, nil, &FileError{"CertFile", "", errors.New("is empty but KeyFile is set (set both, or none)")}
	case f.KeyFile == "":
		return nil, nil, &FileError{"KeyFile", "", errors.New("is empty but CertFile is set (set both, or none)")}
	}
	own, field, err := readPair(f.CertFile, f.KeyFile)
	if err != nil {
		file := f.CertFile
		if field == "KeyFile" {
			file = f.KeyFile
		}
		return nil, nil, &FileError{field, file, err}
	}
	return roots, own, nil
}

// readPair also says which of the two files is at fault.
func readPair(cert, key string) (*tls.Certificate, string, error) {
	certPEM, err := os.ReadFile(cert) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, "CertFile", cause(err)
	}
	keyPEM, err := os.ReadFile(key) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, "KeyFile", cause(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, "CertFile", fmt.Errorf("is no pair with the key in %q: %w", key, err)
	}
	return &pair, "", nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, cause(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("holds no certificate (a PEM file with BEGIN CERTIFICATE is needed)")
	}
	return pool, nil
}

// cause leaves out the path, which stands in the message already.
func cause(err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}
