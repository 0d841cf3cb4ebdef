package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestHomeStress has the kernels of two nodes do to one home what goes wrong
// elsewhere.
func TestHomeStress(t *testing.T) { stressHomes(t, 1, false) }

func TestLongHomeStress(t *testing.T) {
	long(t, "strains a home")
	stressHomes(t, 10, false)
}

// TestLongHomeRestarts does the same with a server that is restarted in the middle of all of it.
func TestLongHomeRestarts(t *testing.T) {
	long(t, "strains a home")
	stressHomes(t, 4, true)
}

// stress is two nodes that share a home.
type stress struct {
	*homes
	nodes    []*lab.Guest
	scale    int  // how much of everything
	restarts bool // the server, meanwhile
}

func stressHomes(t *testing.T, scale int, restarts bool) {
	h := serveHomes(t, t.TempDir(), []string{"./cmd/rootnfsd", "./integration/exerciser"}, "--home-layout", "shared", "--home-squash", "none")
	s := &stress{homes: h, nodes: h.boot(t, 2), scale: scale, restarts: restarts}
	for _, g := range s.nodes {
		mountHome(t, g)
	}
	if restarts {
		s.hold(t)
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *stress)
		held bool // the server's sockets
		long bool // too much for each time: another part is much like it
		ends bool // the server itself, or what it is connected by
	}{
		{name: "exclusive creates", test: raceForFiles},
		{name: "listing while files are removed", test: listAndRemove},
		{name: "open files that are removed", test: removeOpenFiles},
		{name: "mappings", test: mapFiles},
		{name: "fio", test: verifyByFio},
		{name: "no space", test: fillDisk},
		{name: "quota", test: exceedQuota},
		{name: "connections that are cut", test: cutConnections, ends: true},
		{name: "restarts", test: restartServer, long: true, ends: true},
		{name: "kills", test: killServer, ends: true},
		{name: "restarts, with sockets held", test: restartHeldServer, held: true, ends: true},
		{name: "kills, with sockets held", test: killHeldServer, held: true, long: true, ends: true},
	} {
		if part.long && scale == 1 || part.ends && restarts {
			continue
		}
		if part.held {
			s.hold(t)
		}
		start := time.Now()
		ok := t.Run(part.name, func(t *testing.T) {
			if restarts {
				defer restartMeanwhile(t, s.Daemon, waiting, s.Stop)()
			}
			part.test(t, s)
		})
		t.Logf("%s: %.0f s", part.name, time.Since(start).Seconds())
		if !ok {
			return // a guest may still be at it
		}
	}
}

// mkdir makes a directory in the home and returns its path on the host.
func (s *stress) mkdir(t *testing.T, path string) string {
	t.Helper()
	dir := filepath.Join(s.dir, path)
	mkdir(t, dir)
	return dir
}

// both runs a script in both nodes at the same time, and calls meanwhile over and
// over until they have ended. N in a script is the node's number.
func (s *stress) both(t *testing.T, script string, meanwhile func()) (output [2]string) {
	t.Helper()
	type answer struct {
		node   int
		output string
		err    error
	}
	answers := make(chan answer, len(s.nodes))
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit*time.Duration(s.scale))
	defer cancel()
	for n, g := range s.nodes {
		go func() {
			out, err := g.Run(ctx, fmt.Sprintf("N=%d\n%s", n+1, script))
			answers <- answer{n, out, err}
		}()
	}
	for ended := 0; ended < len(s.nodes); {
		select {
		case a := <-answers:
			ended++
			if a.err != nil {
				t.Errorf("node %d: %v", a.node+1, a.err)
			}
			output[a.node] = a.output
		default:
			meanwhile()
		}
	}
	return output
}

// wait is what both does meanwhile if there is nothing else.
func wait() { time.Sleep(10 * time.Millisecond) }

// raceForFiles has both nodes make the same files by O_EXCL: each has one maker.
//
// Linux tells the kernels apart by a clock that starts with the boot and the
// number of the process (nfs3_proc_create in fs/nfs/nfs3proc.c). Two guests that
// were booted at the same time would have both in common.
func raceForFiles(t *testing.T, s *stress) {
	const rounds = 1000
	dir := s.mkdir(t, "race")
	out := s.both(t, fmt.Sprintf("echo ${N}0000 >/proc/sys/kernel/ns_last_pid; /data/exerciser race -dir /tmp/home/race -node $N -rounds %d", rounds*s.scale), wait)
	makers := map[string]string{}
	for n, won := range out {
		t.Logf("node %d made %d files", n+1, len(strings.Fields(won)))
		for _, file := range strings.Fields(won) {
			if makers[file] != "" {
				t.Errorf("file %s was made by both", file)
			}
			makers[file] = fmt.Sprint(n + 1)
		}
	}
	for i := range rounds * s.scale {
		content, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if maker := makers[fmt.Sprint(i)]; err != nil || string(content) != maker {
			t.Errorf("file %d says %q, %v; it was made by %q", i, content, err, maker)
		}
	}
}

// listAndRemove removes many files in one node while the other lists them.
func listAndRemove(t *testing.T, s *stress) {
	const many = 10_000
	dir := s.mkdir(t, "many")
	for i := range many {
		write(t, filepath.Join(dir, fmt.Sprintf("file%d", i)), "")
	}
	// The other node looks at once whether a directory has changed.
	in(t, s.nodes[1], fmt.Sprintf("mkdir /tmp/fresh && mount -t nfs -o %s,nosharecache,actimeo=0 %s:/home /tmp/fresh", homeOptions, lab.ServerAddress))
	out := s.both(t, `if [ $N = 1 ]; then sleep 0.5; rm -rf /tmp/home/many; else /data/exerciser list -dir /tmp/fresh/many; fi`, wait)
	t.Logf("node 2: %s", strings.TrimSpace(out[1]))
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	in(t, s.nodes[1], "umount /tmp/fresh")
}

// removeOpenFiles removes files that are open.
func removeOpenFiles(t *testing.T, s *stress) {
	s.mkdir(t, "open1")
	s.mkdir(t, "open2")
	s.both(t, fmt.Sprintf("/data/exerciser unlink -dir /tmp/home/open$N -rounds %d", 10*s.scale), wait)
}

// mapFiles has nodes write files by mmap, one after the other, and the other one
// read them.
func mapFiles(t *testing.T, s *stress) {
	for i := range 4 * s.scale {
		writer, reader := s.nodes[i%2], s.nodes[1-i%2]
		command := fmt.Sprintf("/data/exerciser map -path /tmp/home/mapped -seed %d", i)
		in(t, writer, command)
		in(t, reader, command+" -check")
	}
}

// verifyByFio has fio write files and verify them, in the node that wrote them and
// in the other.
func verifyByFio(t *testing.T, s *stress) {
	s.mkdir(t, "fio1")
	s.mkdir(t, "fio2")
	for _, engine := range []string{"psync", "mmap"} {
		job := func(node string) string {
			return fmt.Sprintf("fio --name=%[1]s --directory=/tmp/home/fio%[2]s --ioengine=%[1]s --size=%[3]dM --numjobs=2 --bsrange=1k-64k --rw=randwrite"+
				" --verify=crc32c --verify_fatal=1 --end_fsync=1 --randrepeat=1 --minimal", engine, node, 4*s.scale)
		}
		s.both(t, job("$N"), wait)
		s.both(t, job("$((3 - N))")+" --verify_only", wait)
	}
}

// fillDisk writes to a home that is on a small disk.
func fillDisk(t *testing.T, s *stress) {
	require(t, "mount", "mke2fs")
	dir := t.TempDir()
	image, home := filepath.Join(dir, "image"), filepath.Join(dir, "home")
	mkdir(t, home)
	hostRun(t, "mke2fs", "-q", "-t", "ext4", image, "16M")
	hostRun(t, "mount", "-o", "loop", image, home)
	t.Cleanup(func() { syscall.Unmount(home, syscall.MNT_DETACH) })
	store := newStore(t, map[string]files{"v1": smallTree})
	small := serve(t, s.net, "--export", store, "--home", home, "--home-layout", "shared", "--home-squash", "none",
		"--allow", lab.ServerAddress+"/24", "--listen", ":12049", "--portmap", "off")
	if s.restarts {
		defer restartMeanwhile(t, small, refused, small.Stop)()
	}
	g := s.nodes[0]
	in(t, g, fmt.Sprintf("mkdir /tmp/small && mount -t nfs -o %s,port=12049,mountport=12049 %s:/home /tmp/small", homeOptions, lab.ServerAddress))
	in(t, g, "echo kept >/tmp/small/kept")
	for range 2 * s.scale {
		out := in(t, g, "/data/exerciser fill -path /tmp/small/file")
		if !strings.Contains(out, "no space left on device") {
			t.Errorf("a full disk: %s", out)
		}
		t.Logf("%s", strings.TrimSpace(out))
		// The space is there again, and all else still is.
		in(t, g, `grep -qx kept /tmp/small/kept && head -c 8M /dev/urandom >/tmp/small/new &&
			cp /tmp/small/new /tmp/small/copy 2>/dev/null; sync; rm -f /tmp/small/copy && head -c 1M /dev/zero >>/tmp/small/new && sync /tmp/small/new && rm /tmp/small/new`)
	}
	in(t, g, "umount /tmp/small")
}

// hostRun runs a program of the host.
func hostRun(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}

// exceedQuota serves a home with quotas, which needs a kernel that has them: that
// of a guest.
func exceedQuota(t *testing.T, s *stress) {
	g := s.nodes[0]
	in(t, g, `set -e
modprobe loop
mkdir -p /tmp/images/v1 /tmp/quota /tmp/limited
truncate -s 32M /tmp/image
mke2fs -q -t ext4 -O quota -E quotatype=usrquota /tmp/image
device=$(losetup --find --show /tmp/image)
mount -o usrquota $device /tmp/quota
mkdir /tmp/quota/1000 /tmp/quota/1001
chown 1000 /tmp/quota/1000
chown 1001 /tmp/quota/1001
/data/exerciser quota -device $device -uid 1000 -kib 4096
cat >/tmp/serve <<'END'
/data/rootnfsd serve --export /tmp/images --home /tmp/quota --home-layout shared --listen 127.0.0.1:12049 --portmap off >/tmp/rootnfsd.log 2>&1 &
echo $! >/tmp/rootnfsd.pid
until grep -q 'is serving' /tmp/rootnfsd.log; do kill -0 $!; sleep 0.1; done
END
sh -e /tmp/serve
mount -t nfs -o `+homeOptions+`,port=12049,mountport=12049 127.0.0.1:/home /tmp/limited`)
	if s.restarts {
		in(t, g, `: >/tmp/restarts
(until [ -e /tmp/enough ]; do sleep 2; kill $(cat /tmp/rootnfsd.pid); while grep -q . /proc/$(cat /tmp/rootnfsd.pid)/cmdline; do sleep 0.1; done; sh -e /tmp/serve; echo >>/tmp/restarts; done; rm /tmp/enough) >/dev/null 2>&1 &`)
	}
	as := func(uid int, command string) string {
		return fmt.Sprintf("setpriv --reuid %d --regid %[1]d --clear-groups %s", uid, command)
	}
	for range 2 {
		out := in(t, g, as(1000, "/data/exerciser fill -limit 16777216 -path /tmp/limited/1000/file"))
		if !strings.Contains(out, "disk quota exceeded") {
			t.Errorf("a user without space: %s", out)
		}
		t.Logf("%s", strings.TrimSpace(out))
	}
	in(t, g, as(1001, "dd if=/dev/zero of=/tmp/limited/1001/file bs=1M count=8 conv=fsync"))
	in(t, g, as(1000, "dd if=/dev/zero of=/tmp/limited/1000/file bs=1M count=3 conv=fsync"))
	if s.restarts {
		if out := in(t, g, ": >/tmp/enough; while [ -e /tmp/enough ]; do sleep 0.1; done; wc -l </tmp/restarts"); out == "0\n" {
			t.Error("the server was never restarted: this test sees nothing")
		}
	}
	in(t, g, "umount /tmp/limited && kill $(cat /tmp/rootnfsd.pid) && until umount /tmp/quota; do sleep 0.1; done")
}

// prepareStorm makes what a storm moves, and returns the script that does it.
func (s *stress) prepareStorm(t *testing.T, dir string, flags string) (script string, check func(t *testing.T)) {
	t.Helper()
	var shared []string
	for i := range 30 {
		shared = append(shared, fmt.Sprint("shared", i))
	}
	top := filepath.Join(s.dir, dir)
	for _, d := range []string{"a", "b", "c", "d"} {
		mkdir(t, filepath.Join(top, d))
	}
	for _, name := range shared {
		write(t, filepath.Join(top, "a", name), name)
	}
	script = fmt.Sprintf("/data/exerciser storm -dir /tmp/home/%s -node own$N -shared %s -time %ds %s", dir, strings.Join(shared, ","), 8*s.scale, flags)
	return script, func(t *testing.T) { checkStorm(t, top, shared) }
}

// checkStorm looks on the host at what a storm has left. Each node has looked for
// what is its own.
func checkStorm(t *testing.T, top string, shared []string) {
	t.Helper()
	where := map[string]string{}
	for _, d := range []string{"a", "b", "c", "d"} {
		entries, err := os.ReadDir(filepath.Join(top, d))
		if err != nil {
			t.Fatal(err)
		}
		links := uint64(2)
		for _, e := range entries {
			path := filepath.Join(top, d, e.Name())
			if where[e.Name()] != "" {
				t.Errorf("%s is there, and %s", path, where[e.Name()])
			}
			where[e.Name()] = path
			if e.IsDir() {
				links++
			}
			switch {
			case slices.Contains(shared, e.Name()):
				content, err := os.ReadFile(path)
				if err != nil || string(content) != e.Name() || linksOf(t, path) != 1 {
					t.Errorf("%s says %q, %v, and has %d names", path, content, err, linksOf(t, path))
				}
			case !strings.HasPrefix(e.Name(), "own"):
				t.Errorf("nobody made %s", path)
			}
		}
		if got := linksOf(t, filepath.Join(top, d)); got != links {
			t.Errorf("%s has %d links, want %d", d, got, links)
		}
	}
	for _, name := range shared {
		if where[name] == "" {
			t.Errorf("%s is lost", name)
		}
	}
}

func linksOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Nlink)
}

// cutConnections cuts the connections of both nodes over and over in a storm of
// renames. The kernels repeat what had no answer, and no program notices.
func cutConnections(t *testing.T, s *stress) {
	require(t, "ss")
	storm, check := s.prepareStorm(t, "cut", "")
	cuts := 0
	out := s.both(t, storm, func() {
		time.Sleep(rand.N(400 * time.Millisecond))
		if r := finish(t, s.net.Command("ss", "--no-header", "--kill", "--tcp", "sport = :2049")); strings.Contains(r.stdout, "ESTAB") {
			cuts++
		}
	})
	t.Logf("%d cuts\n%s", cuts, strings.Join(out[:], ""))
	if cuts == 0 {
		t.Error("no connection was cut: this test sees nothing")
	}
	check(t)
}

// killServer kills the server over and over while both nodes exercise files and
// rename others.
func killServer(t *testing.T, s *stress) {
	s.underLoad(t, "killed", "-killed", refused, s.Kill)
}

// killHeldServer does it to a server whose sockets are held for it.
func killHeldServer(t *testing.T, s *stress) {
	s.underLoad(t, "killed-held", "-killed", waiting, s.Kill)
}

// restartServer stops the server in good order over and over. Unlike one that is
// killed it answers what it has done, so that not even a rename fails.
func restartServer(t *testing.T, s *stress) {
	s.underLoad(t, "restarted", "", refused, s.Stop)
}

func restartHeldServer(t *testing.T, s *stress) {
	s.underLoad(t, "restarted-held", "", waiting, s.Stop)
}

// hold has another server, whose sockets are held, take the place of the one that
// runs, if its are not.
func (h *homes) hold(t *testing.T) {
	t.Helper()
	if h.held {
		return
	}
	h.held = true
	h.Stop()
	h.Daemon = serveBy(t, lab.ServeHeld, h.net, h.args...)
}

// restartMeanwhile stops a server by stop and starts it, over and over, until the function
// that it returns is called.
func restartMeanwhile(t *testing.T, d *lab.Daemon, interval time.Duration, stop func()) (end func()) {
	enough, ended := make(chan struct{}), make(chan struct{})
	restarts := 0
	go func() {
		defer close(ended)
		for {
			select {
			case <-enough:
				return
			case <-time.After(interval/4 + rand.N(interval*3/4)):
			}
			stop()
			if err := d.Start(context.Background()); err != nil {
				t.Error(err)
				return
			}
			restarts++
		}
	}()
	return func() {
		close(enough)
		<-ended
		t.Logf("%d restarts", restarts)
		if restarts == 0 {
			t.Error("the server was never restarted: this test sees nothing")
		}
	}
}

// How long a server runs between two stops, at most. A kernel whose connection was
// refused tries again after three seconds at the earliest, and has nothing to lose
// until then.
const (
	refused = 8 * time.Second
	waiting = 2 * time.Second
)

// underLoad stops the server by stop and starts it, over and over, while both nodes
// exercise files and rename others.
func (s *stress) underLoad(t *testing.T, dir, flags string, interval time.Duration, stop func()) {
	storm, check := s.prepareStorm(t, dir, flags)
	s.mkdir(t, dir+"/files1")
	s.mkdir(t, dir+"/files2")
	end := restartMeanwhile(t, s.Daemon, interval, stop)
	out := s.both(t, fmt.Sprintf(`%s >/tmp/storm 2>&1 &
/data/exerciser files -dir /tmp/home/%s/files$N -processes 3 -restarts -time %ds 2>&1
files=$?
wait $! && cat /tmp/storm && exit $files
cat /tmp/storm
exit 1`, storm, dir, 8*s.scale), wait)
	end()
	t.Log(strings.Join(out[:], ""))
	check(t)
}
