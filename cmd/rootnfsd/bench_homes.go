package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/homes"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

func benchHomesCommand() *cli.Command {
	return &cli.Command{
		Name:  "homes",
		Usage: "measure homes, which nodes write to, beside nfs-ganesha",
		Description: `Serves a directory as a home, and others of the same file system by nfs-ganesha. All
do the same work in turn, several times: a file is written and read in pieces of
1 MiB and, at random, of 4 KiB, small files are made and removed, and a source tree
is unpacked. What was written is compared with what arrived.

rootnfsd brings a change to the disk before it answers, as RFC 1813 demands. Of
itself nfs-ganesha does so with content alone. So it is measured with a directory in
which the file system syncs changes of names (chattr +D, which ext4 has) and with
COMMIT after each SETATTR, and once more as it comes.

nfs-ganesha needs root and its packages (apt-get install nfs-ganesha
nfs-ganesha-vfs); it is left out without.

Examples:
   rootnfsd bench homes --quick
   rootnfsd bench homes --dir /srv --json homes.json
   rootnfsd bench homes --work untar,"small files" --settings 1x1 --runs 3
   rootnfsd bench homes --dir /dev/shm --servers rootnfsd     no disk to wait for`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Value: os.TempDir(), Usage: "make files below `DIR`, and remove them at the end"},
			&cli.StringFlag{Name: "servers", Value: "rootnfsd,ganesha", Usage: "measure these: `NAME,…`"},
			&cli.StringFlag{Name: "work", Usage: "do only this `WORK,…` (default: all there is: " + strings.Join(homeWorkNames(), ", ") + ")"},
			&cli.StringFlag{Name: "settings", Value: "1x1,4x16", Usage: "numbers of connections and of what is done at a time on each: `CxN,…`"},
			&cli.IntFlag{Name: "runs", Value: 5, Usage: "repeat everything `N` times"},
			&cli.DurationFlag{Name: "duration", Value: 500 * time.Millisecond, Usage: "`TIME` of each run of work that has no end"},
			&cli.DurationFlag{Name: "limit", Value: 2 * time.Minute, Usage: "give up on a server that needs more than `TIME` for a run"},
			&cli.IntFlag{Name: "size", Value: 128, Usage: "write and read files of `MIB` in all"},
			&cli.IntFlag{Name: "files", Value: 2000, Usage: "unpack trees of `N` files in all"},
			&cli.BoolFlag{Name: "quick", Usage: "a first impression: 3 runs of 200 ms, 32 MiB and 300 files"},
			congestionFlag(),
			&cli.StringFlag{Name: "json", Usage: "write the results to `FILE`, - being standard output"},
		},
		Action: benchHomes,
	}
}

func homeWorkNames() []string {
	var names []string
	for _, w := range homes.Works() {
		names = append(names, w.Name)
	}
	return names
}

func benchHomes(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	plan, err := homesPlan(c)
	if err != nil {
		return err
	}
	servers := splitCommas([]string{c.String("servers")})
	for _, name := range servers {
		if name != "rootnfsd" && name != "ganesha" {
			return usageError(c, "--servers %s: there are rootnfsd and ganesha", name)
		}
	}
	if ran, err := inOwnNetwork(c); ran {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	plan.Progress = func(done, total int, next string) { line.show(fmt.Sprintf("%d of %d: %s", done, total, next)) }
	plan.Note = line.print
	// nfs-ganesha wants the whole path, and no symlinks in it.
	below, err := filepath.Abs(c.String("dir"))
	if err == nil {
		below, err = filepath.EvalSymlinks(below)
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(below, "rootnfsd-homes")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for the user whose files they are
		return err
	}
	h := &homeServers{dir: dir, about: map[string]string{
		"TCP": "congestion control " + peer.Congestion() + ", loopback",
	}}
	defer h.stop()
	if err := h.start(ctx, servers, plan.Note); err != nil {
		return err
	}
	report := &bench.Report{Date: time.Now().UTC(), Machine: bench.ThisMachine(), Servers: h.about}
	err = plan.Run(ctx, h.targets, report)
	line.clear()
	return publish(c, report, err, writeServers, loadTable)
}

// homesPlan reads the flags.
func homesPlan(c *cli.Context) (*homes.Plan, error) {
	const mebi = 1 << 20
	p := &homes.Plan{Runs: c.Int("runs"), Duration: c.Duration("duration"), Limit: c.Duration("limit"), Size: c.Int("size"), Files: c.Int("files")}
	if c.Bool("quick") {
		p.Runs, p.Duration = unlessSet(c, "runs", p.Runs, 3), unlessSet(c, "duration", p.Duration, 200*time.Millisecond)
		p.Size, p.Files = unlessSet(c, "size", p.Size, 32), unlessSet(c, "files", p.Files, 300)
	}
	p.Size *= mebi
	var err error
	if p.Works, err = chosenWorks(homes.Works(), func(w homes.Work) string { return w.Name }, c.String("work")); err != nil {
		return nil, usageError(c, "--work %v", err)
	}
	for _, text := range splitCommas([]string{c.String("settings")}) {
		var s homes.Setting
		if n, err := fmt.Sscanf(text+" ", "%dx%d ", &s.Connections, &s.InFlight); n != 2 || err != nil {
			return nil, usageError(c, "--settings %s: want connections x jobs, as 4x16", text)
		}
		p.Settings = append(p.Settings, s)
	}
	if err := p.Check(); err != nil {
		return nil, usageError(c, "%v", err)
	}
	return p, nil
}

// homeServers are servers of directories below one.
type homeServers struct {
	dir     string
	targets []*homes.Target
	about   map[string]string // what each is, for a report
	running []*peer.Server
}

func (h *homeServers) stop() {
	for _, s := range h.running {
		s.Stop()
	}
}

// start starts the servers. nfs-ganesha is left out where it cannot be had, with a note.
func (h *homeServers) start(ctx context.Context, names []string, note func(string)) error {
	if slices.Contains(names, "rootnfsd") {
		if err := h.startRootnfsd(ctx); err != nil {
			return err
		}
	}
	if !slices.Contains(names, "ganesha") {
		return nil
	}
	if err := peer.MissingGanesha(); err != nil {
		note(fmt.Sprintf("nfs-ganesha is left out: %v", err))
		return nil
	}
	return h.startGanesha(ctx, note)
}

func (h *homeServers) startRootnfsd(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	t := &homes.Target{Name: "rootnfsd", Export: filepath.Join(h.dir, "rootnfsd"), Options: homeUser()}
	t.Dir = t.Export
	if err := os.Mkdir(t.Export, 0o755); err != nil {
		return err
	}
	if t.Server, err = peer.RootnfsdHome(ctx, program, t.Export); err != nil {
		return err
	}
	h.running = append(h.running, t.Server)
	h.about[t.Name] = t.Server.About + "; homes on " + bench.FileSystem(h.dir) +
		"; WRITE FILE_SYNC, COMMIT, SETATTR and all that changes names are answered after fsync"
	return h.add(t)
}

// startGanesha starts one server for the two ways in which it is measured.
func (h *homeServers) startGanesha(ctx context.Context, note func(string)) error {
	export := filepath.Join(h.dir, "ganesha")
	if err := os.Mkdir(export, 0o755); err != nil {
		return err
	}
	server, err := peer.GaneshaWritable(ctx, export)
	if err != nil {
		return err
	}
	h.running = append(h.running, server)
	synced := &homes.Target{Name: "nfs-ganesha", Export: export, Dir: filepath.Join(export, "synced"), Server: server, Durable: true, Options: homeUser()}
	plain := &homes.Target{Name: "nfs-ganesha, not synced", Export: export, Dir: filepath.Join(export, "plain"), Server: server, NamesOnly: true, Options: homeUser()}
	content := server.About + "; files on " + bench.FileSystem(h.dir) + "; WRITE FILE_SYNC and COMMIT are answered after fsync"
	h.about[synced.Name] = content + ", CREATE, MKDIR, SYMLINK and REMOVE after the file system has synced them (chattr +D), SETATTR is followed by a COMMIT that is not counted"
	h.about[plain.Name] = content + ", what changes names or attributes at once: a power cut loses it"
	if err := h.add(synced); err != nil {
		note(fmt.Sprintf("nfs-ganesha is measured as it comes only: %v", err))
		plain.NamesOnly = false
	}
	return h.add(plain)
}

func (h *homeServers) add(t *homes.Target) error {
	if err := t.Prepare(); err != nil {
		return err
	}
	h.targets = append(h.targets, t)
	return nil
}

// homeUser is who calls: an ordinary user, as on nodes, where there can be one.
func homeUser() rpc.Options {
	const user = 1000
	if os.Geteuid() == 0 {
		return rpc.Options{UID: user, GID: user}
	}
	return rpc.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}
