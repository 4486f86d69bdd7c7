"""The studies that the project grew out of, under their own protocol and under an honest one."""
