package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs/image"
)

// progress shows how far something is that takes long: as a bar with rate and
// remaining time on a terminal, as a plain line now and then in a log.
type progress struct {
	what  string
	out   io.Writer
	bar   *progressbar.ProgressBar // nil in a log
	begun time.Time
	said  time.Time
}

const logInterval = 5 * time.Second

func newProgress(what string) *progress {
	p := &progress{what: what, out: os.Stderr, begun: time.Now(), said: time.Now()}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetDescription(what),
			progressbar.OptionSetWriter(os.Stderr),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetPredictTime(true),
		)
	}
	return p
}

// update is what the store calls with its progress.
func (p *progress) update(now image.Progress) {
	if p.bar != nil {
		if now.TotalBytes > 0 && p.bar.GetMax64() != int64(now.TotalBytes) {
			p.bar.ChangeMax64(int64(now.TotalBytes))
		}
		p.bar.Describe(p.what + files(now))
		p.bar.Set64(int64(now.Bytes))
		return
	}
	if time.Since(p.said) < logInterval || now.TotalBytes == 0 {
		return
	}
	p.said = time.Now()
	elapsed := time.Since(p.begun)
	rate := float64(now.Bytes) / elapsed.Seconds()
	left := time.Duration(float64(now.TotalBytes-min(now.Bytes, now.TotalBytes)) / max(rate, 1) * float64(time.Second))
	fmt.Fprintf(p.out, "%s%s: %s of %s, %s/s, %s left\n", p.what, files(now), size(now.Bytes), size(now.TotalBytes), size(uint64(rate)), left.Round(time.Second))
}

// files says how many files are done, where they are counted.
func files(now image.Progress) string {
	if now.TotalFiles == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d of %d files)", now.Files, now.TotalFiles)
}

// done takes the bar away; the command says what came of it.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Finish()
	}
}

// size writes a number of bytes for people, in binary units.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := uint64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
