package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// archive packs the binary with what goes with it.
func (r *release) archive(name, binary string) (err error) {
	file := name + ".tar.gz"
	f, err := os.Create(filepath.Join(r.out, file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	compressed, err := gzip.NewWriterLevel(f, gzip.BestCompression) // its header has neither name nor time
	if err != nil {
		return err
	}
	p := &packer{release: r, tar: tar.NewWriter(compressed), folder: name}
	if err := p.add(binary, "relay"); err != nil {
		return err
	}
	for _, path := range packed {
		if err := p.walk(path); err != nil {
			return err
		}
	}
	r.files = append(r.files, file)
	return errors.Join(p.tar.Close(), compressed.Close())
}

type packer struct {
	*release

	tar    *tar.Writer
	folder string // at the top of the archive
}

// walk adds a file of the repository, or all below a folder, in lexical order.
func (p *packer) walk(path string) error {
	return filepath.WalkDir(filepath.Join(p.root, path), func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || skipped(entry.Name()) {
			return err
		}
		name, err := filepath.Rel(p.root, file)
		if err != nil {
			return err
		}
		return p.add(file, filepath.ToSlash(name))
	})
}

// skipped are the tests of what is shipped, and their module.
func skipped(name string) bool {
	return strings.HasSuffix(name, ".go") || name == "go.mod" || name == "go.sum"
}

// add writes a header of our own: owner, time and the rest of the mode are the
// machine's.
func (p *packer) add(file, name string) error {
	f, err := os.Open(file) //nolint:gosec // of the repository
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it is only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: p.folder + "/" + name, Size: info.Size(), Mode: 0o644, ModTime: p.at, Format: tar.FormatPAX,
	}
	if info.Mode()&0o100 != 0 {
		header.Mode = 0o755
	}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(p.tar, f)
	return err
}
