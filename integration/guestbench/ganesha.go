package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

const (
	ganeshaPort      = 12049
	ganeshaMountPort = 12050
)

// ganesha is nfs-ganesha, running in the network of the guest.
type ganesha struct {
	cmd    *exec.Cmd
	mapper *peer.Rpcbind
}

// startGanesha starts nfs-ganesha on the tree and waits until it answers.
func (b *guestbench) startGanesha(ctx context.Context) (*ganesha, error) {
	config, log := filepath.Join(b.dir, "ganesha.conf"), filepath.Join(b.dir, "ganesha.log")
	text, err := peer.GaneshaConfig(lab.ServerAddress, strconv.Itoa(ganeshaPort), strconv.Itoa(ganeshaMountPort), b.bench.Tree)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return nil, err
	}
	mapper, err := peer.StartRpcbind(ctx)
	if err != nil {
		return nil, err
	}
	args := mapper.Within("ganesha.nfsd", "-F", "-f", config, "-L", log, "-p", filepath.Join(b.dir, "ganesha.pid"))
	g := &ganesha{b.net.Command(args[0], args[1:]...), mapper}
	if err := g.cmd.Start(); err != nil {
		mapper.Stop()
		return nil, err
	}
	listening := func() bool {
		out, _ := b.net.Command("ss", "-Htln").Output()
		return strings.Contains(string(out), fmt.Sprintf(":%d ", ganeshaMountPort)) && strings.Contains(string(out), fmt.Sprintf(":%d ", ganeshaPort))
	}
	for !listening() {
		select {
		case <-ctx.Done():
			g.stop()
			said, _ := os.ReadFile(log)
			return nil, fmt.Errorf("nfs-ganesha did not start: %w\n%s", ctx.Err(), said)
		case <-time.After(100 * time.Millisecond):
		}
	}
	b.report.Servers["nfs-ganesha"] = peer.GaneshaAbout
	return g, nil
}

func (g *ganesha) meter() peer.Meter { return peer.Meter(g.cmd.Process.Pid) }

func (g *ganesha) stop() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.mapper.Stop()
}
