# Form of address: du.

code-subject = Dein Code für { $app }
sign-up-intro = Gib diesen Code ein, um deine Adresse zu bestätigen:
sign-in-intro = Dein Code für die Anmeldung:
email-intro = Gib diesen Code ein, um deine neue Adresse zu bestätigen:
or-open-link = Oder öffne diesen Link:
confirm-button = Adresse bestätigen
sign-in-button = Anmelden
code-and-link-lifetime = Der Code gilt { $code_time }, der Link { $link_time }.
code-advice = Wenn du das nicht angefordert hast, ignoriere diese Mail – es passiert nichts. Gib den Code an niemanden weiter.

already-subject = Du hast schon ein Konto bei { $app }
already-text = Jemand, vielleicht du, wollte sich bei { $app } mit dieser Adresse registrieren. Zu ihr gibt es aber schon ein Konto.
already-advice = Melde dich an wie immer. Wenn du dein Passwort vergessen hast, fordere dort ein neues an.

password-subject = Neues Passwort für { $app }
password-intro = Öffne diesen Link, um ein neues Passwort festzulegen:
password-button = Passwort festlegen
password-advice = Wenn du das nicht angefordert hast, ignoriere diese Mail: Dein Passwort bleibt, wie es ist.
link-lifetime = Der Link gilt { $time }.

email-subject = Bestätige deine neue Adresse für { $app }
email-asked-subject = Deine Adresse bei { $app } soll geändert werden
email-asked-text = Jemand, der in deinem Konto angemeldet ist, möchte dafür eine andere Adresse verwenden. Wenn du das warst, musst du nichts tun.
email-asked-intro = Wenn du das nicht warst, öffne diesen Link, um diese Adresse zu behalten:
email-asked-button = Adresse behalten
email-asked-advice = Lege danach ein neues Passwort fest und melde deine anderen Geräte ab.
email-changed-subject = Deine Adresse bei { $app } wurde geändert
email-changed-text = Dein Konto hat jetzt eine andere Adresse. Diese hier wird nicht mehr verwendet.
email-changed-advice = Wenn du das nicht warst, antworte sofort auf diese Mail.
email-confirmed-text = Diese Adresse gehört jetzt zu deinem Konto bei { $app }. Melde dich ab sofort mit ihr an.

password-changed-subject = Dein Passwort bei { $app } wurde geändert
password-changed-text = Dein Passwort wurde neu festgelegt, und alle anderen Geräte sind abgemeldet.
password-changed-advice = Wenn du das nicht warst, fordere sofort ein neues Passwort an.

device-subject = Neue Anmeldung in deinem Konto bei { $app }
device-text = Ein neues Gerät hat sich in deinem Konto angemeldet: { $device }, am { $time }.
device-unnamed-text = Ein neues Gerät hat sich am { $time } in deinem Konto angemeldet.
device-advice = Wenn du das nicht warst, lege sofort ein neues Passwort fest. Damit werden alle anderen Geräte abgemeldet.

deletion-subject = Dein Konto bei { $app } wird gelöscht
deletion-text = Dein Konto und alles, was du geschrieben hast, wird am { $date } gelöscht.
deletion-advice = Wenn du es dir anders überlegst, melde dich vorher wieder an.
deleted-subject = Dein Konto bei { $app } wurde gelöscht
deleted-text = Dein Konto und alles, was du geschrieben hast, wurde wie gewünscht gelöscht. Du bekommst keine weiteren Mails von { $app }.

invitation-subject = Eine Einladung bei { $app }
invitation-text = { $name } möchte sich bei { $app } mit dir verbinden.
invitation-unnamed-text = Jemand, der deine Adresse kennt, möchte sich bei { $app } mit dir verbinden. Wer das ist, steht nicht in dieser Mail: Du siehst den Namen, wenn du die Einladung öffnest.
invitation-intro = Der Code der Einladung:
invitation-button = Einladung öffnen
invitation-expiry = Code und Link gelten bis { $time }.
invitation-advice = Wenn du keine Einladung erwartest, ignoriere diese Mail – es passiert nichts.
accepted-subject = Deine Einladung bei { $app } wurde angenommen
accepted-text = { $name } hat deine Einladung angenommen. Ihr seid jetzt bei { $app } verbunden.
accepted-advice = Wenn du diese Person nicht kennst, beende die Verbindung in der App.

left-subject = Deine Verbindung bei { $app } wurde beendet
left-text = Die Person, mit der du bei { $app } verbunden warst, hat die Verbindung beendet.
left-advice = Du musst nichts tun: Dein Konto bleibt bestehen.

digest-subject = Ungelesene Nachrichten bei { $app }
digest-text =
    { $form ->
        [one] Du hast { $count } ungelesene Nachricht bei { $app }.
       *[other] Du hast { $count } ungelesene Nachrichten bei { $app }.
    }
digest-from-text =
    { $form ->
        [one] Du hast { $count } ungelesene Nachricht von { $name } bei { $app }.
       *[other] Du hast { $count } ungelesene Nachrichten von { $name } bei { $app }.
    }
digest-advice = Öffne die App, um zu lesen und zu antworten.
digest-reason = Du bekommst diese Mail, weil du dich über ungelesene Nachrichten per Mail informieren lässt.
digest-stop = Diese Mails abbestellen

stop-title = Mails über ungelesene Nachrichten
stop-question = Möchtest du diese Mails abbestellen?
stop-done = Du bekommst keine Mails über ungelesene Nachrichten mehr. In der App kannst du sie wieder einschalten.
stop-failed = Dieser Link funktioniert nicht. Schalte die Mails in der App aus.

news-subject = Neues von { $app }
news-text = Öffne die App.

# Always after "gilt": accusative.
duration-seconds =
    { $form ->
        [one] { $count } Sekunde
       *[other] { $count } Sekunden
    }
duration-minutes =
    { $form ->
        [one] { $count } Minute
       *[other] { $count } Minuten
    }
duration-hours =
    { $form ->
        [one] { $count } Stunde
       *[other] { $count } Stunden
    }
duration-days =
    { $form ->
        [one] { $count } Tag
       *[other] { $count } Tage
    }

date =
    { $day }. { $month ->
        [1] Januar
        [2] Februar
        [3] März
        [4] April
        [5] Mai
        [6] Juni
        [7] Juli
        [8] August
        [9] September
        [10] Oktober
        [11] November
       *[12] Dezember
    } { $year }
date-time = { $date }, { $time } Uhr (UTC)
