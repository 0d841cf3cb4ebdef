package integration

import (
	"archive/tar"
	"io"
	"strings"
	"testing"
)

// nodeFiles are the regular files that node-files has for a kind of system, by path.
func nodeFiles(t *testing.T, system string, args ...string) files {
	t.Helper()
	all := files{}
	archive := tar.NewReader(strings.NewReader(cli(t, append([]string{"node-files", "--for", system, "--tar"}, args...)...)))
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[h.Name] = string(b)
		}
	}
}
