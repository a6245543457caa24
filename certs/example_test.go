package certs_test

import (
	"fmt"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/certs"
)

func ExampleFiles() {
	files := certs.Files{CAFile: "/no/such/ca.crt", CertFile: "/certs/tls.crt", KeyFile: "/certs/tls.key"}
	_ = kafka.Config{Brokers: []string{"broker:9093"}, TLSFiles: &files} // renewed files are used by the next connection
	fmt.Println(files.Validate())                                        // at start, to say it early
	// Output:
	// certs: Files.CAFile "/no/such/ca.crt": no such file or directory
}
