"""Storage pools and volumes, and the disks that instances have of them."""
