"""What the daemon renders: dnsmasq and nftables configuration, image recipes."""
