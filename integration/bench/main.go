// Bench makes all the measurements that bench/RESULTS.md tells of, one after the
// other, and writes it anew. Each part leaves its figures in bench/results, so
// that --only can repeat one of them.
//
// It needs root and the program that make build leaves. Nothing else should run
// meanwhile: it takes more than an hour.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// part is one program to run. "STORE" in its arguments stands for a store with
// a golden Debian root, "TREE" for that root itself, "DISK" for a directory on an ext4
// as mkfs makes it, whatever file system the sources are on.
type part struct {
	name string
	args []string
}

var parts = []part{
	// What opens the golden roots itself comes before the parts that are given them.
	{"boot", []string{"go", "run", "./integration/bootbench"}},
	{"guest", []string{"go", "run", "./integration/guestbench", "--counted=false"}},
	{"guest-counted", []string{"go", "run", "./integration/guestbench", "--race=false", "--fio=false"}},
	{"race", []string{"./rootnfsd", "bench", "race", "--export", "STORE", "--servers", "rootnfsd,ganesha,limit"}},
	// So slow that it would disturb the others: what it has not answered when its time is over goes on.
	{"race-gonfs", []string{"./rootnfsd", "bench", "race", "--export", "STORE", "--servers", "go-nfs", "--connections", "1,4", "--cold=false"}},
	{"storm", []string{"./rootnfsd", "bench", "storm", "--compare", "--export", "STORE", "--nodes", "1,16,64,256"}},
	{"storm-1024", []string{"./rootnfsd", "bench", "storm", "--compare", "--export", "STORE", "--nodes", "1024", "--servers", "rootnfsd,ganesha,limit"}},
	{"storm-rtt", []string{"./rootnfsd", "bench", "storm", "--compare", "--export", "STORE", "--nodes", "1,16,64", "--servers", "rootnfsd,ganesha,limit", "--rtt", "1ms"}},
	{"cold", []string{"./rootnfsd", "bench", "cold", "--export", "STORE", "--nodes", "16"}},
	// Its rows are near their goals, and the spread of five runs is larger than what is missing.
	{"homes", []string{"./rootnfsd", "bench", "homes", "--dir", "DISK", "--runs", "15"}},
	{"tftp", []string{"./rootnfsd", "bench", "tftp"}},
	{"tftp-rtt", []string{"./rootnfsd", "bench", "tftp", "--rtt", "1ms", "--servers", "rootnfsd,dnsmasq,tftpd-hpa"}},
	{"store", []string{"./rootnfsd", "bench", "store", "--tree", "TREE", "--dir", ".cache"}},
	{"import", []string{"./rootnfsd", "bench", "import", "--tree", "TREE", "--dir", ".cache"}},
}

const results = "bench/results"

func main() {
	only := flag.String("only", "", "measure just these `PARTS`, with commas: "+strings.Join(names(), ", "))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

func run(ctx context.Context, only string) error {
	chosen := names()
	if only != "" {
		chosen = strings.Split(only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no part %q: want some of %s", name, strings.Join(names(), ", "))
		}
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	b := &bencher{}
	defer b.close()
	var failed error
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) || ctx.Err() != nil {
			continue
		}
		fmt.Printf("\n== %s (%s)\n", p.name, time.Now().Format(time.TimeOnly))
		if err := b.measure(ctx, p); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if ctx.Err() != nil {
		return errors.Join(failed, ctx.Err())
	}
	files, err := filepath.Glob(results + "/*.json")
	if err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, execute(ctx, append([]string{"./rootnfsd", "bench", "report"}, files...)))
}

// bencher holds the golden roots and the disk when a part has needed them.
type bencher struct {
	golden *lab.Golden
	disk   string // where it is mounted
}

func (b *bencher) close() {
	if b.golden != nil {
		b.golden.Close()
	}
	if b.disk != "" {
		if err := execute(context.Background(), []string{"umount", b.disk}); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return // and keep what is mounted there
		}
		os.RemoveAll(filepath.Dir(b.disk))
	}
}

// measure runs a part. Its earlier figures stay until there are new ones, which a
// part that fails may have written, too: then they tell of the failures.
func (b *bencher) measure(ctx context.Context, p part) error {
	args := slices.Clone(p.args)
	for i, arg := range args {
		switch arg {
		case "STORE", "TREE":
			if err := b.openGolden(ctx); err != nil {
				return err
			}
			args[i] = map[string]string{"STORE": b.golden.Store, "TREE": b.golden.Tree("v1")}[arg]
		case "DISK":
			if err := b.openDisk(ctx); err != nil {
				return err
			}
			args[i] = b.disk
		}
	}
	file := filepath.Join(results, p.name+".json")
	failed := execute(ctx, append(args, "--json", file+".new"))
	if report, err := bench.Load(file + ".new"); ctx.Err() != nil || err != nil || len(report.Results) == 0 {
		return errors.Join(failed, err, ctx.Err(), os.RemoveAll(file+".new"))
	}
	return errors.Join(failed, os.Rename(file+".new", file))
}

// openGolden makes a golden root, seals and promotes it, once.
func (b *bencher) openGolden(ctx context.Context) (err error) {
	if b.golden != nil {
		return nil
	}
	if b.golden, err = lab.OpenGolden(); err != nil {
		return err
	}
	return execute(ctx, []string{"./rootnfsd", "promote", "v1", "--export", b.golden.Store})
}

// openDisk makes a file system in a file, and mounts it, once.
func (b *bencher) openDisk(ctx context.Context) error {
	if b.disk != "" {
		return nil
	}
	const cache, size = ".cache", 4 << 30
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(cache, "disk")
	if err != nil {
		return err
	}
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	err = errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(at, 0o755), os.Chmod(dir, 0o755))
	// Without direct I/O all would be in the page cache twice, and go to the disk not when
	// the file system says so but when it flushes.
	direct := `losetup --direct-io=on "$(findmnt --noheadings --output SOURCE "$0")"`
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, at}, {"sh", "-c", direct, at}} {
		if err == nil {
			err = execute(ctx, args)
		}
	}
	if err != nil {
		_ = unix.Unmount(at, 0) // if it is mounted
		return errors.Join(err, os.RemoveAll(dir))
	}
	b.disk = at
	return nil
}

// execute runs a program in the terminal of this one.
func execute(ctx context.Context, args []string) error {
	fmt.Println("+", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
