gallery.manifest({"title":"demo","running":true,"written":1795640389.838,"counts":{"done":2,"failed":1,"waiting":1},"chunks":["6e4859b3bbe6"]});
