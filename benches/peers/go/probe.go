package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// probe is what the operating system and the server's own counters say at one moment.
type probe struct {
	at       int64
	counters map[string]float64
	client   proc
	servers  []proc
}

// proc is the memory (kB) and CPU time (ms) of one process.
type proc struct {
	rssKB, anonKB int64
	cpuMS         int64
}

// Counters kept from /metrics. A labelled family is summed by gRPC method.
var wanted = map[string]bool{
	"grpc_server_started_total":                     true,
	"grpc_server_msg_received_total":                true,
	"grpc_server_msg_sent_total":                    true,
	"etcd_debugging_mvcc_events_total":              true,
	"etcd_debugging_mvcc_watcher_total":             true,
	"etcd_debugging_mvcc_slow_watcher_total":        true,
	"etcd_debugging_mvcc_keys_total":                true,
	"etcd_network_client_grpc_sent_bytes_total":     true,
	"etcd_network_client_grpc_received_bytes_total": true,
	"etcd_disk_wal_fsync_duration_seconds_sum":      true,
	"etcd_disk_wal_fsync_duration_seconds_count":    true,
	"etcd_server_proposals_committed_total":         true,
}

var scraper = &http.Client{Timeout: 20 * time.Second}

func label(labels, name string) string {
	_, rest, ok := strings.Cut(labels, name+`="`)
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(rest, `"`)
	return v
}

func scrape(urls []string) (map[string]float64, error) {
	out := map[string]float64{}
	for _, u := range urls {
		resp, err := scraper.Get(u)
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(resp.Body)
		sc.Buffer(make([]byte, 1<<20), 1<<20)
		for sc.Scan() {
			line := sc.Text()
			if line == "" || line[0] == '#' {
				continue
			}
			space := strings.LastIndexByte(line, ' ')
			if space < 0 {
				continue
			}
			name, labels, _ := strings.Cut(line[:space], "{")
			if !wanted[name] {
				continue
			}
			v, err := strconv.ParseFloat(line[space+1:], 64)
			if err != nil {
				continue
			}
			if m := label(labels, "grpc_method"); m != "" {
				name += ":" + m
			}
			out[name] += v
		}
		err = sc.Err()
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readProc(pid int) (p proc, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmRSS:":
			p.rssKB, _ = strconv.ParseInt(f[1], 10, 64)
		case "RssAnon:":
			p.anonKB, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	// The second field is in brackets and may hold spaces; utime and stime are the 14th and 15th, in ticks of 1/100 s.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	u, _ := strconv.ParseInt(f[11], 10, 64)
	k, _ := strconv.ParseInt(f[12], 10, 64)
	p.cpuMS = (u + k) * 10
	return p, nil
}

func (e *env) probe() (*probe, error) {
	p := &probe{}
	var err error
	if p.client, err = readProc(os.Getpid()); err != nil {
		return nil, err
	}
	for _, pid := range e.spids {
		q, err := readProc(pid)
		if err != nil {
			return nil, err
		}
		p.servers = append(p.servers, q)
	}
	if p.counters, err = scrape(e.murls); err != nil {
		return nil, err
	}
	p.at = now()
	return p, nil
}

func (p *probe) memory() map[string]any {
	m := map[string]any{
		"client_rss_kb":     p.client.rssKB,
		"client_anon_kb":    p.client.anonKB,
		"client_goroutines": runtime.NumGoroutine(),
	}
	var rss, anon int64
	for _, s := range p.servers {
		rss += s.rssKB
		anon += s.anonKB
	}
	if len(p.servers) > 0 {
		m["etcd_rss_kb"], m["etcd_anon_kb"] = rss, anon
	}
	return m
}

// family is the change of a family of counters since an earlier probe, by gRPC method; unchanged ones are left out.
func (p *probe) family(since *probe, name string) map[string]float64 {
	out := map[string]float64{}
	for k, v := range p.counters {
		if n, method, ok := strings.Cut(k, ":"); ok && n == name {
			if d := v - since.counters[k]; d != 0 {
				out[method] = d
			}
		}
	}
	return out
}

func (p *probe) delta(since *probe, name string) float64 {
	return p.counters[name] - since.counters[name]
}

// cost is everything that changed since an earlier probe. per > 0 adds the same numbers divided by per.
func (p *probe) cost(since *probe, per int) map[string]any {
	out := map[string]any{
		"wall_ms":       round(float64(p.at-since.at)/1e6, 1),
		"client_cpu_ms": p.client.cpuMS - since.client.cpuMS,
	}
	if len(p.servers) > 0 {
		var cpu int64
		for i := range p.servers {
			cpu += p.servers[i].cpuMS - since.servers[i].cpuMS
		}
		out["etcd_cpu_ms"] = cpu
	}
	if len(p.counters) == 0 {
		return out
	}
	started := p.family(since, "grpc_server_started_total")
	received := p.family(since, "grpc_server_msg_received_total")
	sent := p.family(since, "grpc_server_msg_sent_total")
	events := p.delta(since, "etcd_debugging_mvcc_events_total")
	bytesOut := p.delta(since, "etcd_network_client_grpc_sent_bytes_total")
	bytesIn := p.delta(since, "etcd_network_client_grpc_received_bytes_total")
	out["rpc_started"] = started
	out["rpc_msg_received"] = received
	out["rpc_msg_sent"] = sent
	out["watch_events"] = events
	out["bytes_to_clients"] = bytesOut
	out["bytes_from_clients"] = bytesIn
	out["raft_proposals"] = p.delta(since, "etcd_server_proposals_committed_total")
	if n := p.delta(since, "etcd_disk_wal_fsync_duration_seconds_count"); n > 0 {
		out["wal_fsync_mean_us"] = round(p.delta(since, "etcd_disk_wal_fsync_duration_seconds_sum")/n*1e6, 1)
		out["wal_fsyncs"] = n
	}
	if per > 0 {
		// Keep-alives go by the clock and not by what is measured.
		sum := func(m map[string]float64) (t float64) {
			for method, v := range m {
				if method != "LeaseKeepAlive" {
					t += v
				}
			}
			return t
		}
		each := func(m map[string]float64) map[string]float64 {
			r := map[string]float64{}
			for k, v := range m {
				r[k] = round(v/float64(per), 3)
			}
			return r
		}
		out["per_op"] = map[string]any{
			"rpc_started":        each(started),
			"rpc_msg_received":   each(received),
			"rpc_msg_sent":       each(sent),
			"msgs_received_all":  round(sum(received)/float64(per), 3),
			"msgs_sent_all":      round(sum(sent)/float64(per), 3),
			"watch_events":       round(events/float64(per), 3),
			"bytes_to_clients":   round(bytesOut/float64(per), 1),
			"bytes_from_clients": round(bytesIn/float64(per), 1),
		}
	}
	return out
}
