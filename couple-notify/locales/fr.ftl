# Form of address: tu. A no-break space stands before : and ;.

code-subject = Ton code pour { $app }
sign-up-intro = Saisis ce code pour confirmer ton adresse :
sign-in-intro = Ton code de connexion :
email-intro = Saisis ce code pour confirmer ta nouvelle adresse :
or-open-link = Ou ouvre ce lien :
confirm-button = Confirmer l’adresse
sign-in-button = Se connecter
code-and-link-lifetime = Le code est valable { $code_time }, le lien { $link_time }.
code-advice = Si tu n’es pas à l’origine de cette demande, ignore ce message et il ne se passera rien. Ne communique ce code à personne.

already-subject = Tu as déjà un compte sur { $app }
already-text = Quelqu’un, peut-être toi, a essayé de s’inscrire sur { $app } avec cette adresse, qui a déjà un compte.
already-advice = Connecte-toi comme d’habitude. Si tu as oublié ton mot de passe, demandes-en un nouveau au même endroit.

password-subject = Nouveau mot de passe pour { $app }
password-intro = Ouvre ce lien pour choisir un nouveau mot de passe :
password-button = Choisir un mot de passe
password-advice = Si tu n’es pas à l’origine de cette demande, ignore ce message : ton mot de passe ne change pas.
link-lifetime = Le lien est valable { $time }.

email-subject = Confirme ta nouvelle adresse pour { $app }
email-asked-subject = Demande de changement de ton adresse sur { $app }
email-asked-text = Une personne connectée à ton compte a demandé à utiliser une autre adresse. Si c’est toi, tu n’as rien à faire.
email-asked-intro = Si ce n’est pas toi, ouvre ce lien pour conserver cette adresse :
email-asked-button = Conserver cette adresse
email-asked-advice = Choisis ensuite un nouveau mot de passe et déconnecte tes autres appareils.
email-changed-subject = Ton adresse sur { $app } a changé
email-changed-text = Ton compte a maintenant une autre adresse, et celle-ci n’est plus utilisée.
email-changed-advice = Si ce n’est pas toi, réponds immédiatement à ce message.
email-confirmed-text = Cette adresse est maintenant celle de ton compte sur { $app }. Utilise-la désormais pour te connecter.

password-changed-subject = Ton mot de passe sur { $app } a changé
password-changed-text = Ton mot de passe a été défini, et tous les autres appareils sont déconnectés.
password-changed-advice = Si ce n’est pas toi, demande immédiatement un nouveau mot de passe.

device-subject = Nouvelle connexion à ton compte sur { $app }
device-text = Un nouvel appareil s’est connecté à ton compte : { $device }, le { $time }.
device-unnamed-text = Un nouvel appareil s’est connecté à ton compte le { $time }.
device-advice = Si ce n’est pas toi, choisis immédiatement un nouveau mot de passe : tous les autres appareils seront déconnectés.

deletion-subject = Ton compte sur { $app } va être supprimé
deletion-text = Ton compte et tout ce que tu as écrit seront supprimés le { $date }.
deletion-advice = Si tu changes d’avis, connecte-toi avant cette date.
deleted-subject = Ton compte sur { $app } a été supprimé
deleted-text = Ton compte et tout ce que tu as écrit ont été supprimés, comme tu l’as demandé. Tu ne recevras plus de messages de { $app }.

invitation-subject = Une invitation sur { $app }
invitation-text = { $name } souhaite se connecter avec toi sur { $app }.
invitation-unnamed-text = Une personne qui connaît ton adresse souhaite se connecter avec toi sur { $app }. Ce message ne dit pas qui : tu verras son nom en ouvrant l’invitation.
invitation-intro = Le code de l’invitation :
invitation-button = Ouvrir l’invitation
invitation-expiry = Le code et le lien sont valables jusqu’au { $time }.
invitation-advice = Si tu n’attends pas d’invitation, ignore ce message et il ne se passera rien.
accepted-subject = Ton invitation sur { $app } a été acceptée
accepted-text = { $name } a accepté ton invitation. Vous partagez désormais { $app }.
accepted-advice = Si tu ne connais pas cette personne, mets fin à la connexion dans l’application.

left-subject = Ta connexion sur { $app } a pris fin
left-text = La personne avec qui tu partageais { $app } a mis fin à la connexion.
left-advice = Tu n’as rien à faire : ton compte est conservé.

digest-subject = Messages non lus sur { $app }
digest-text =
    { $form ->
        [one] Tu as { $count } message non lu sur { $app }.
       *[other] Tu as { $count } messages non lus sur { $app }.
    }
digest-from-text =
    { $form ->
        [one] Tu as { $count } message non lu de { $name } sur { $app }.
       *[other] Tu as { $count } messages non lus de { $name } sur { $app }.
    }
digest-advice = Ouvre l’application pour lire et répondre.
digest-reason = Tu reçois cet e-mail parce que tu as demandé des e-mails sur les messages non lus.
digest-stop = Ne plus recevoir ces e-mails

stop-title = E-mails sur les messages non lus
stop-question = Veux-tu ne plus recevoir ces e-mails ?
stop-done = Tu ne recevras plus d’e-mails sur les messages non lus. Tu peux les réactiver dans l’application.
stop-failed = Ce lien ne fonctionne pas. Désactive les e-mails dans l’application.

news-subject = Des nouvelles de { $app }
news-text = Ouvre l’application.

# Always after "valable".
duration-seconds =
    { $form ->
        [one] { $count } seconde
       *[other] { $count } secondes
    }
duration-minutes =
    { $form ->
        [one] { $count } minute
       *[other] { $count } minutes
    }
duration-hours =
    { $form ->
        [one] { $count } heure
       *[other] { $count } heures
    }
duration-days =
    { $form ->
        [one] { $count } jour
       *[other] { $count } jours
    }

date =
    { $day } { $month ->
        [1] janvier
        [2] février
        [3] mars
        [4] avril
        [5] mai
        [6] juin
        [7] juillet
        [8] août
        [9] septembre
        [10] octobre
        [11] novembre
       *[12] décembre
    } { $year }
date-time = { $date } à { $time } UTC
