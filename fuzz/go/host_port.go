// What Go makes of many texts that may be `host:port`: the table of tests/it/models/host_port.rs.
//
//	go run fuzz/go/host_port.go > tests/it/models/host_port.tsv
//
// A row is a network, a text and an outcome, with tabs between them. The outcome is Go's error, or `=` and
// the addresses that Go would connect to, or `?` and the port for a name that it asks DNS about. A DNS server in
// this program answers, and nothing is connected: Control refuses each socket.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"sort"
	"strings"
	"syscall"
)

// How many rows of one kind of outcome.
const mostOfAKind = 40

var farEnough = errors.New("far enough")

// What the server says of each name.
var ipv4, ipv6 = net.ParseIP("127.0.0.7"), net.ParseIP("::7")

func dns(_ context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		for {
			var length [2]byte
			if _, err := io.ReadFull(theirs, length[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(theirs, query); err != nil {
				return
			}
			end := 12
			for query[end] != 0 {
				end += int(query[end]) + 1
			}
			end += 5
			kind := binary.BigEndian.Uint16(query[end-4:])
			answer := []byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}
			answer = append(answer, query[12:end]...)
			record := append([]byte{0, 4}, ipv4.To4()...)
			if kind == 28 {
				record = append([]byte{0, 16}, ipv6...)
			}
			answer = append(answer, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 9)
			answer = append(answer, record...)
			binary.BigEndian.PutUint16(length[:], uint16(len(answer)))
			if _, err := theirs.Write(append(length[:], answer...)); err != nil {
				return
			}
		}
	}()
	return ours, nil
}

func outcome(network, text string) string {
	var seen []string
	dialer := net.Dialer{
		// One after the other.
		FallbackDelay: -1,
		Resolver:      &net.Resolver{PreferGo: true, Dial: dns},
		Control: func(_, address string, _ syscall.RawConn) error {
			seen = append(seen, address)
			return farEnough
		},
	}
	_, err := dialer.Dial(network, text)
	if len(seen) == 0 {
		return err.Error()
	}
	for _, answer := range []string{"127.0.0.7:", "[::7]:"} {
		if port, found := strings.CutPrefix(seen[0], answer); found {
			return "?" + port
		}
	}
	return "=" + strings.Join(seen, " ")
}

// The kind of an outcome: its words, or the form of its addresses.
func kind(network, outcome string) string {
	switch {
	case strings.HasPrefix(outcome, "?"):
		return "a name"
	case strings.HasPrefix(outcome, "="):
		form := strings.Map(func(r rune) rune {
			if strings.ContainsRune("[].% ", r) {
				return r
			}
			return -1
		}, outcome)
		return network + form
	}
	words := strings.Split(outcome, ": ")
	return words[1][:4] + words[len(words)-1]
}

var pieces = []string{
	":", ":", ":", ":", "[", "]", "[", "]", "%", ".", ".", "-", "+", "_", " ", "/", "\\", "é", "0", "1", "9", "80", "00", "65535", "65536",
	"4294967296", "18446744073709551616", "a", "b", "xn--", "A", "Z", "f", "ff", "ffff", "FE80", "fe80", "::", "::", "::1", "::ffff:",
	"127.0.0.1", "0.0.0.0", "1.2.3.4", "10.0.0", "256", "0x7f", "01", "lo", "%lo", "%1", "%0", "http", "HTTPS", "domain", "ssh", "nosuch",
	"example", ".test", ".invalid", strings.Repeat("a", 63), strings.Repeat("b.", 100), "2001:db8", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
}

var hosts = []string{
	"127.0.0.1", "1.2.3.4", "0.0.0.0", "255.255.255.255", "01.2.3.4", "1.2.3", "1.2.3.4.5", "1.2.3.400", "::", "::1", "fe80::1", "fe80::1%lo",
	"fe80::1%1", "fe80::1%", "fe80::1%%lo", "fe80::1%lo%lo", "fe80::1%nosuch", "::ffff:1.2.3.4", "::ffff:1.2.3.4%lo", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4",
	"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::2::3", "12345::", "::g", ":1", "1:", "::ffff:0:0", "64:ff9b::1.2.3.4", "127.0.0.1%lo",
	"", "a", "a.b", "a.b.", "a..b", ".", "..", "-a", "a-", "a-b", "a_b", "_", "-", "1", "1.2", "1.a", "a b", "é", "example.test", "EXAMPLE.test.",
	"0x7f.1", "0x7f", "nosuch.invalid", strings.Repeat("a", 63) + ".b", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 127) + "a", strings.Repeat("a.", 126) + "ab.",
}

var ports = []string{
	"", "0", "1", "80", "080", "+80", "-80", "-0", "+0", "+", "-", "+-1", "--1", "65535", "65536", "1073741824", "4294967296", "4294967376",
	"18446744073709551616", "99999999999999999999x", "9999999999x", "80x", "x80", " 80", "80 ", "8 0", "http", "HTTP", "hTtPs", "domain", "ssh", "nosuch", "ht tp", "http ", "é", "0x50", "1e3", ".", "%lo",
}

func main() {
	random := rand.New(rand.NewSource(1))
	pick := func(of []string) string { return of[random.Intn(len(of))] }
	var texts []string
	for _, host := range hosts {
		for _, port := range []string{":80", "", ":"} {
			texts = append(texts, host+port, "["+host+"]"+port)
		}
	}
	for _, port := range ports {
		texts = append(texts, "127.0.0.1:"+port, "[::1]:"+port, "example.test:"+port, "nosuch..:"+port)
	}
	for range 20000 {
		switch random.Intn(3) {
		case 0:
			texts = append(texts, pick(hosts)+":"+pick(ports))
		case 1:
			texts = append(texts, "["+pick(hosts)+"]:"+pick(ports))
		default:
			var text strings.Builder
			for range 1 + random.Intn(8) {
				text.WriteString(pick(pieces))
			}
			texts = append(texts, text.String())
		}
	}
	known := map[string]bool{}
	kinds := map[string]int{}
	var rows []string
	for _, text := range texts {
		network := []string{"tcp", "tcp", "tcp4", "tcp6"}[random.Intn(4)]
		row := network + "\t" + text
		if known[row] {
			continue
		}
		known[row] = true
		outcome := outcome(network, text)
		if kinds[kind(network, outcome)]++; kinds[kind(network, outcome)] <= mostOfAKind {
			rows = append(rows, row+"\t"+outcome)
		}
	}
	sort.Strings(rows)
	fmt.Println(strings.Join(rows, "\n"))
}
