package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/certs/pgcerts"
)

// tlsConfig is a block "tls", the same for every server that the relay calls. An
// empty one, {}, is TLS with the system's authorities; none at all is no TLS, or what
// the URL says.
//
// ca_file may be "system", as sslrootcert of Postgres: what a variable can say.
type tlsConfig struct {
	CAFile     string `yaml:"ca_file" default:"system" doc:"authorities of the server's certificate (PEM), read at each connection as the other files are; system: the machine's own"`
	CertFile   string `yaml:"cert_file" doc:"certificate of ours (PEM), for mutual TLS"`
	KeyFile    string `yaml:"key_file" doc:"its key (PEM)"`
	ServerName string `yaml:"server_name" default:"the host" doc:"what the server's certificate must be for"`
}

const systemCA = "system"

// files returns nil for no block.
func (t *tlsConfig) files() *certs.Files {
	if t == nil {
		return nil
	}
	ca := t.CAFile
	if ca == systemCA {
		ca = ""
	}
	return &certs.Files{CAFile: ca, CertFile: t.CertFile, KeyFile: t.KeyFile, ServerName: t.ServerName}
}

// httpClient reads the files at each request.
func (t *tlsConfig) httpClient() *http.Client {
	if t == nil {
		return http.DefaultClient
	}
	return &http.Client{Transport: t.files().Transport()}
}

// fileKeys are the keys of a block by the fields of certs.Files.
var fileKeys = map[string]string{"CAFile": "ca_file", "CertFile": "cert_file", "KeyFile": "key_file"}

// checkTLS checks the block "tls" below at, and that its files can be read.
func (v *validator) checkTLS(at string, t *tlsConfig) {
	at += ".tls"
	if t == nil {
		if _, there := v.origins[at]; there { // a block whose lines are all comments must not turn TLS off
			v.fail(at, "is empty: write {} for TLS with the system's authorities, or leave it out")
		}
		return
	}
	problems := len(v.problems)
	t.CAFile = v.optional(at+".ca_file", t.CAFile)
	t.CertFile = v.optional(at+".cert_file", t.CertFile)
	t.KeyFile = v.optional(at+".key_file", t.KeyFile)
	t.ServerName = v.optional(at+".server_name", t.ServerName)
	if len(v.problems) > problems {
		return
	}
	var file *certs.FileError
	if err := t.files().Validate(); errors.As(err, &file) {
		problem := file.Err.Error()
		for field, key := range fileKeys { // of the other file of a pair
			problem = strings.ReplaceAll(problem, field, key)
		}
		if file.File != "" {
			problem = strconv.Quote(file.File) + ": " + problem
		}
		v.fail(at+"."+fileKeys[file.Field], "%s", problem)
	}
}

// sslSetting is what a block "tls" replaces in a connection string.
var sslSetting = regexp.MustCompile(`\bssl(mode|rootcert|cert|key|password|sni)=`)

func (v *validator) checkDatabaseTLS(at string, d *databaseConfig) {
	v.checkTLS(at, d.TLS)
	if d.TLS == nil {
		return
	}
	if found := sslSetting.FindString(d.URL); found != "" {
		v.fail(at+".tls", "stands beside %s in the URL: leave that out, the block is sslmode=verify-full", strings.TrimSuffix(found, "="))
	}
}

// urlProblem says what is wrong with a Postgres URL that could not be parsed. The
// parser's own error may repeat the password; that of a file cannot.
func urlProblem(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return "names a file that cannot be read: " + path.Error()
	}
	return "is not a Postgres URL: write postgres://user:password@host:5432/database"
}

// renewCertificates has each new connection read the certificates anew, be they in a
// block or in the URL.
func (d databaseConfig) renewCertificates(pc *pgxpool.Config) {
	switch {
	case d.TLS != nil:
		pc.BeforeConnect = pgcerts.BeforeConnect(*d.TLS.files())
	case strings.Contains(d.URL, "sslrootcert=") || strings.Contains(d.URL, "sslcert="):
		pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
			fresh, err := pgx.ParseConfig(d.URL)
			if err != nil {
				return wrongUse("the database's URL %s", urlProblem(err))
			}
			cc.TLSConfig, cc.Fallbacks = fresh.TLSConfig, fresh.Fallbacks
			return nil
		}
	}
}

// adapterKey is the key of a field of an adapter's Config, where it is not the same
// word.
func adapterKey(field string) string {
	switch field {
	case "TLSFiles":
		return "tls"
	case "BearerToken":
		return "token"
	case "Token":
		return "oauth" // or token_file
	case "MaxRequestBytes":
		return "max_request_bytes"
	case "PublishTimeout":
		return "publish_timeout"
	default:
		return strings.ToLower(field)
	}
}
