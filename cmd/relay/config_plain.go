package main

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// warnPlainText warns of passwords and tokens that others on the way can read.
func (v *validator) warnPlainText(at string, p *pipelineConfig) {
	switch {
	case p.Kafka != nil && p.Kafka.TLS == nil && p.Kafka.showsSecret():
		for _, b := range p.Kafka.Brokers {
			if elsewhere(b) {
				v.warnPlain(at+".kafka", "the password or token", b, "write tls: {}, or use SCRAM")
				break
			}
		}
	case p.RabbitMQ != nil:
		if u, err := url.Parse(p.RabbitMQ.url()); err == nil && u.Scheme == "amqp" && u.User != nil && elsewhere(u.Host) {
			v.warnPlain(at+".rabbitmq.url", "the password", u.Host, "write amqps://")
		}
	}
	if p.Kafka != nil && p.Kafka.OAuth != nil {
		if u, err := url.Parse(p.Kafka.OAuth.TokenURL); err == nil && u.Scheme == "http" && elsewhere(u.Host) {
			v.warnPlain(at+".kafka.oauth.token_url", "the client's secret", u.Host, "write https://")
		}
	}
	if p.RabbitMQ != nil {
		if u, err := url.Parse(p.RabbitMQ.Management); err == nil && u.Scheme == "http" && elsewhere(u.Host) {
			v.warnPlain(at+".rabbitmq.management", "the password of relay doctor", u.Host, "write https://")
		}
	}
	r := p.Wire.Registry
	if u, err := url.Parse(r.URL); err == nil && u.Scheme == "http" && (u.User != nil || r.Password != "" || r.Token != "") && elsewhere(u.Host) {
		v.warnPlain(at+".wire.registry.url", "the password or token", u.Host, "write https://")
	}
}

func (v *validator) warnPlain(field, what, host, cure string) {
	v.warnings = append(v.warnings, fmt.Sprintf("%s: %s: %s goes to %s in plain text: %s", v.place(field), field, what, host, cure))
}

// showsSecret reports whether the broker is told what nobody else should know. SCRAM
// proves it instead.
func (k *kafkaConfig) showsSecret() bool {
	return (k.Password != "" || k.TokenFile != "" || k.OAuth != nil) && !strings.HasPrefix(strings.ToUpper(k.Mechanism), "SCRAM-")
}

// elsewhere reports whether a host, with or without a port, may be another machine.
func elsewhere(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}
