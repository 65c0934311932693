"""Who may say what: local passwords, device certificates, signed wishes. (Roles and TUF build on this.)"""
