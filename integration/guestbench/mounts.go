package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
	"github.com/rootnfsd/rootnfsd/bench/fio"
	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// mountOptions are the same for all servers: those that rootnfsd prints for nodes,
// less what is for attributes, which no mount here lives long enough for.
const mountOptions = "vers=3,proto=tcp,mountproto=tcp,nolock,ro,nocto,rsize=1048576"

// mount is a server that the guest mounts.
type mount struct {
	server string // as reports call it
	suffix string // of the work's name
	meter  peer.Meter

	host, path      string
	port, mountPort int
}

const loopback = ", loopback"

// readMounts has fio read from all servers in turn: from those that run on the
// host, which send over the bridge, and from two that are in the guest themselves.
func (b *guestbench) readMounts(ctx context.Context) error {
	mounts, stop, err := b.startServers(ctx)
	defer stop()
	if err != nil {
		return err
	}
	b.report.Servers["mount"] = mountOptions + "; mounted anew for each run, so that the client has nothing cached"
	for _, job := range fio.Jobs() {
		// The first time is for the servers' caches.
		for n := range 1 + b.runs {
			for i := range mounts {
				m := &mounts[(i+n)%len(mounts)]
				b.status.show(fmt.Sprintf("%s%s: %s, %d of %d", m.server, m.suffix, job.Work, n, b.runs))
				run, err := b.read(ctx, m, job)
				if err != nil {
					return fmt.Errorf("%s from %s: %w", job.Work, m.server, err)
				}
				if n > 0 {
					b.report.Add(bench.Case{Bench: "guest", Work: job.Work + m.suffix, Server: m.server}, run)
				}
			}
		}
	}
	return nil
}

// read has fio do a job once. A mount that is new has nothing in the page cache;
// dropping all of that would take the files from servers in the guest, too.
func (b *guestbench) read(ctx context.Context, m *mount, job fio.Job) (bench.Run, error) {
	script := fmt.Sprintf("mkdir -p /tmp/tree && mount -t nfs -o %s,port=%d,mountport=%d %s:%s /tmp/tree || exit;"+
		"TREE=/tmp/tree RUNTIME=%dms fio --readonly --output-format=json /data/fio/%s; status=$?; umount /tmp/tree && exit $status",
		mountOptions, m.port, m.mountPort, m.host, m.path, b.duration.Milliseconds(), job.File)
	before := m.cpu()
	out, err := b.inGuest(ctx, scriptLimit, script)
	if err != nil {
		return bench.Run{}, err
	}
	run, err := fio.Parse([]byte(out))
	run.CPU = m.cpu() - before
	return run, err
}

// cpu is what the server has used, or 0 where it is in the guest, together with
// its client.
func (m *mount) cpu() time.Duration {
	if m.meter == 0 {
		return 0
	}
	return m.meter.CPU()
}

// startServers starts all servers that are to be mounted. The caller must stop
// them, also after an error.
func (b *guestbench) startServers(ctx context.Context) (mounts []mount, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, scriptLimit)
	defer cancel()
	b.status.show("starting the servers")
	store := filepath.Join(filepath.Dir(b.rootnfsd), "images")
	ours, err := lab.Serve(ctx, b.net, filepath.Join(b.dir, "rootnfsd.log"), b.rootnfsd, "--export", store, "--allow", "192.0.2.0/24")
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, ours.Kill)
	mounts = append(mounts, mount{"rootnfsd", "", peer.Meter(ours.PID()), lab.ServerAddress, "/images", 2049, 2049})
	if missing := peer.MissingGanesha(); missing != nil {
		fmt.Fprintln(os.Stderr, "nfs-ganesha is left out:", missing)
	} else {
		theirs, err := b.startGanesha(ctx)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, theirs.stop)
		mounts = append(mounts, mount{"nfs-ganesha", "", theirs.meter(), lab.ServerAddress, b.bench.Tree, ganeshaPort, ganeshaMountPort})
	}
	const inside = `/data/rootnfsd serve --export /data/images --listen 127.0.0.1:20490 --portmap off >/tmp/rootnfsd.log 2>&1 </dev/null &
for i in $(seq 600); do grep -q 'is serving' /tmp/rootnfsd.log && exit; sleep 0.1; done; cat /tmp/rootnfsd.log; exit 1`
	if _, err := b.guest.Run(ctx, inside); err != nil {
		return nil, stop, err
	}
	return append(mounts,
		mount{"rootnfsd", loopback, 0, "127.0.0.1", "/images", 20490, 20490},
		mount{"knfsd", loopback, 0, "127.0.0.1", "/mnt", 2049, 20048}), stop, nil
}
