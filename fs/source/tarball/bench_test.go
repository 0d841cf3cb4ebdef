package tarball_test

import (
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/compressed"
	"github.com/rootnfsd/rootnfsd/fs/source/tarball"
)

// BenchmarkImport imports an archive of Go's own sources and programs, compressed in
// several ways, into a new store, and tells how its speed is to that of the decompressor
// alone, the best of each, which run in turn:
//
//	go test ./fs/source/tarball -run - -bench Import -benchtime 4x
//
// On two cores that had other work to do: zstd 0.23 and 0.25, gzip 0.64, xz-blocks 0.79,
// one run each but for zstd. Four imports of zstd, of 1.03 s, had 2.3 s of processor time.
func BenchmarkImport(b *testing.B) {
	dir := b.TempDir()
	archive := filepath.Join(dir, "tar")
	sh(b, "tar -cf "+archive+" -C \"$(go env GOROOT)\" src/cmd pkg/tool")
	info, err := os.Stat(archive)
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string][2]string{
		"zstd":      {"zstd -3", "zstd -dc"},
		"gzip":      {"gzip -6", "gzip -dc"},
		"xz-blocks": {"xz -1 -T2 --block-size=12MiB", "xz -dc -T1"},
		"xz":        {"xz -1 -T1", "xz -dc -T1"},
	} {
		b.Run(name, func(b *testing.B) {
			sh(b, c[0]+" -c <"+archive+" >"+archive+"."+name)
			alone, best := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			b.SetBytes(info.Size())
			for b.Loop() {
				b.StopTimer()
				begun := time.Now()
				sh(b, c[1]+" <"+archive+"."+name+" >/dev/null")
				alone = min(alone, time.Since(begun))
				s := newStore(b)
				b.StartTimer()
				begun = time.Now()
				importFile(b, s, archive+"."+name)
				best = min(best, time.Since(begun))
			}
			b.ReportMetric(float64(alone)/float64(best), "of-alone")
		})
	}
}

func sh(b *testing.B, command string) {
	b.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		b.Skipf("%s: %v\n%s", command, err, out)
	}
}

func importFile(b *testing.B, s *image.Store, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	plain, _, err := compressed.Open(f)
	if err != nil {
		b.Fatal(err)
	}
	var in io.Reader = compressed.Ahead(b.Context(), plain)
	_, err = s.Import(b.Context(), "v1", func(to source.Sink) error { return tarball.Read(in, to) }, image.ImportOptions{})
	if err != nil {
		b.Fatal(err)
	}
}
